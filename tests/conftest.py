"""Shared fixtures: a tiny BERT on disk, a study over it, records, and the Flower identity every process needs."""

import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import numpy as np
import pytest

# one thread for each process, ours and those that tests start, and none that waits for others by spinning: several
# pytest workers share the cores
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "FLWR_TELEMETRY_ENABLED": "0"}
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # third-party imports warn about themselves
    import flwr.app
    import opacus
    import peft
    import torch
    import transformers
    from flwr.supercore.task_identity import TaskIdentity

from shared.adapted_model.frozen_activations import CachedActivations, open_activations
from shared.adapted_model.model import AdaptedModel, build
from shared.records.batches import collate
from shared.records.ragged import Records, ragged
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.e2e.federation import Federation, wait_until
from tests.support.commands import command
from tests.support.paths import ROOT

__all__ = ["flwr", "opacus", "peft", "transformers"]
LONGEST_FIRST = (
    "tests/integration/test_faults_short.py",
    "tests/simulations/test_run.py",
    "tests/integration/test_guides.py",
    "tests/integration/test_docker_flow.py",
    "tests/integration/test_node_operations.py",
    "tests/integration/test_what_leaves.py",
)
hypothesis.settings.register_profile("fedvault", deadline=None)  # no claim: a machine may be busy with something else
hypothesis.settings.load_profile("fedvault")
# what processes of tests begin with: it is loaded once for all of them
multiprocessing.set_forkserver_preload(["simulations.engines.worker", "server.run_store.store"])
WORDS = [f"word{i}" for i in range(60)] + ["good", "bad", "fine", "poor"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="Where models of tests run, such as cuda; default: cpu.")


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--device")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise pytest.UsageError(f"Expected a machine with a GPU for --device={name}, got one where PyTorch finds none.")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where a test's model runs; `--device=cuda` puts the same oracles on a GPU."""
    return torch.device(request.config.getoption("--device"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first, so that no worker begins one of them when the others are done."""
    absent = [name for name in LONGEST_FIRST if not (config.rootpath / name).exists()]
    if absent:
        raise pytest.UsageError(f"Expected LONGEST_FIRST in tests/conftest.py to name files of tests, got {absent}.")
    if hasattr(config, "workerinput"):
        order = {config.rootpath / name: place for place, name in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(autouse=True, scope="session")
def _no_orphans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ends the servers and nodes of this session when it ends, killed or not."""
    command = [sys.executable, "-m", "tests.support.end_orphans", str(tmp_path_factory.getbasetemp())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True):
        yield


@pytest.fixture(autouse=True, scope="session")
def _identity(tmp_path_factory: pytest.TempPathFactory) -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
    torch.set_num_threads(1)
    os.environ["FLWR_HOME"] = str(tmp_path_factory.mktemp("flower"))


@pytest.fixture(scope="module")
def commands_in_this_process() -> Iterator[None]:
    """Operators' commands of a federation run in this process; what they start are real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulations.e2e.federation.command", command)
        yield


@pytest.fixture(scope="session")
def not_here() -> Callable[[str], NoReturn]:
    """Says that a tool is missing: a failure where CI=true, since CI is to have it, and a skip anywhere else."""

    def say(reason: str) -> NoReturn:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; with CI=true it has to be here")
        pytest.skip(reason)

    return say


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three layers with random weights and a word-level vocabulary."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def make_study(tiny_bert: Path) -> Callable[..., Study]:
    """Builds a study over the tiny BERT; sections are given as keywords."""

    def make(**sections: dict[str, Any]) -> Study:
        declared: dict[str, Any] = {
            "study": {"name": "test"},
            "model": {"source": str(tiny_bert)},
            "task": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 24},
            "federation": {"rounds": 3, "smallest_declared_size": 10},
            "training": {"local_steps": 3},
        }
        for name, values in sections.items():
            declared[name] = declared.get(name, {}) | values
        return parse(Study, declared, where="test")

    return make


@pytest.fixture
def records_of() -> Callable[..., Records]:
    """Records of a sequence classification from token ids and labels; -1 for one that cannot be used."""

    def make(ids: list[list[int]], targets: list[int]) -> Records:
        fields = {"ids": ragged(ids, np.int32), "target": ragged(targets, np.int64)}
        return Records(fields, np.array([target >= 0 for target in targets], dtype=bool))

    return make


@pytest.fixture
def make_records(records_of: Callable[..., Records]) -> Callable[..., Records]:
    """Builds token records of many lengths with labels that their tokens decide."""

    def make(count: int, seed: int = 0) -> Records:
        generator = np.random.default_rng(seed)
        lengths = generator.integers(3, 20, count)
        records = [generator.integers(5, 60, length).tolist() for length in lengths]
        return records_of(records, [record[0] % 2 for record in records])

    return make


@pytest.fixture
def check_cut(tmp_path: Path, device: torch.device) -> Callable[[Study], AdaptedModel]:
    """Checks that a study's model is cut, computes what the whole one does, and gives the same bits from its cache."""

    def check(study: Study) -> AdaptedModel:
        model = build(study).to(device)
        assert model.has_frozen_layers
        drawn = np.random.default_rng(0).standard_normal(model.layout.length)
        model.load((0.3 * drawn).astype(np.float32))
        records = model.kind.synthetic(model.config, [8, 5, 6, 8, 3], variant=0)
        indices = range(len(records))
        whole = collate(records, indices, model.kind.fills, device)
        for storage in ("float32", "float16"):
            anew = open_activations(model, records, device, folder=None, limit_bytes=0, storage=storage)
            kept = open_activations(model, records, device, folder=tmp_path, limit_bytes=2**30, storage=storage)
            assert isinstance(kept, CachedActivations)
            for other in (anew.states([3, 1, 4, 0, 2]), kept.states([3, 1, 4, 0, 2]), anew.states([3])):
                for place, states in zip([3, 1, 4, 0, 2], other, strict=False):
                    assert torch.equal(states.to(device), anew.states(indices)[place])
            batch = kept.batch(indices)
            assert not set(model.frozen_fields) & set(batch)
            exact = {"rtol": 1e-4, "atol": 1e-4} if storage == "float32" else {"rtol": 0.05, "atol": 0.05}
            torch.testing.assert_close(model.losses(batch), model.losses(whole), **exact)
            with torch.no_grad():
                found = model.kind.evidence(model, batch, records, indices)
                if storage == "float32":
                    assert_evidence_close(found, model.kind.evidence(model, whole, records, indices))
        return model

    return check


def assert_evidence_close(found: Any, expected: Any) -> None:
    """Compare what was predicted, numbers within rounding."""
    for one, other in zip(found, expected, strict=True):
        for part, like in zip(one, other, strict=True):
            if isinstance(part, float) or getattr(part, "dtype", np.dtype(object)).kind == "f":
                np.testing.assert_allclose(part, like, rtol=1e-3, atol=1e-4)
            else:
                np.testing.assert_equal(part, like)


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A server that runs: gateway with TLS, Flower's SuperLink behind it, no nodes yet."""
    found = Federation(tmp_path_factory.mktemp("federation"))
    try:
        found.make_server()
        found.server("start", "--detach")
        wait_until(found.ready, "the server runs")
        yield found
    finally:
        found.stop()
