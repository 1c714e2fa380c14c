"""A node loads no plug-in, whatever is installed beside it and whatever a study names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nodes import Node, Studies
from tests.support.paths import ROOT
from tests.support.plugins import write_package

EVIL = "from pathlib import Path\nPath(__file__).with_name('imported').touch()\nraise SystemExit(3)\n"
TRAIN = """
import importlib, pkgutil, sys
from pathlib import Path
import client, numpy as np
from client.vault.service.node_vault import NodeVault
from shared.adapted_model.model import initial_adapter
from shared.protocol.messages import TrainTask
from client.vault.review.node_files import open_node

for module in pkgutil.walk_packages(client.__path__, "client."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
config = Path(sys.argv[1])
study = open_node(config).approved.study("r-1")
reply = NodeVault(config).train(TrainTask(study.sha256, "r-1", 1, initial_adapter(study)))
print(reply.status.name, study.federation.aggregation, "evil" in sys.modules)
"""


def test_nothing_that_a_node_runs_looks_for_entry_points() -> None:
    modules = [path for part in ("client", "shared") for path in (ROOT / part).rglob("*.py")]
    words = re.compile(r"entry_points|EntryPoint|distributions\(|server\.plugins")
    assert modules and [str(path) for path in modules if words.search(path.read_text())] == []


@pytest.mark.slow
@pytest.mark.integration
def test_a_node_trains_a_study_that_names_a_malicious_plug_in_and_never_imports_it(
    tmp_path: Path, tiny_bert: Path, make_study: Studies
) -> None:
    site = write_package(tmp_path / "site", "evil", EVIL, aggregations="evil=Evil", partitioners="evil=evil")
    node = Node(tmp_path, tiny_bert, make_study)
    node.approve(node.study(federation={"quorum": 3, "aggregation": "evil"}))
    path = os.pathsep.join([str(Path.cwd()), str(site)])
    child = [sys.executable, "-W", "ignore", "-c", TRAIN, str(node.config)]
    done = subprocess.run(child, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["TRAINED", "evil", "False"], done.stderr[-2000:]
    assert not (site / "imported").exists()
