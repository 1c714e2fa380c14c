"""A real pretrained model in every run of the tests: a small language model of chemical reactions learns privately."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest

from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.model import build
from shared.base_models.bundled import DATA_FOLDER_VARIABLE, data_folder
from shared.study.declaration import Study
from shared.study.parsing import parse
from simulations.datasets.fetch import find
from simulations.experiment.scenario import Scenario
from simulations.progress import SilentProgress
from simulations.run import Run
from tests.support.paths import ROOT

NAME = "reactions-albert"
RINGS = ("c1ccccc1", "c1ccc(F)cc1", "c1ccc(Cl)cc1", "c1ccncc1", "c1cccs1", "c1ccc(OC)cc1", "c1ccc(C)cc1", "c1cnccn1")
CHAINS = ("C", "CC", "CCC", "C(C)C", "CCOC", "C1CC1")
REACTIONS: dict[str, Callable[[str, str], str]] = {
    "amide": lambda ring, chain: f"OC(=O){ring}.N{chain}>>O=C(N{chain}){ring}",
    "ester": lambda ring, chain: f"OC(=O){ring}.O{chain}>>O=C(O{chain}){ring}",
    "ether": lambda ring, chain: f"O{ring}.Br{chain}>>O({chain}){ring}",
    "amine": lambda ring, chain: f"O=C{ring}.N{chain}>>C(N{chain}){ring}",
}
"""Four kinds of reactions between a ring and a chain, in SMILES."""


@pytest.fixture(autouse=True)
def _at_hand(not_here: Callable[[str], NoReturn], monkeypatch: pytest.MonkeyPatch) -> None:
    """`make setup` fetches the model; the tests themselves fetch nothing."""
    if find(NAME, ROOT / data_folder()) is None:
        not_here(f"{NAME} is not here: run `make setup`")
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(ROOT / data_folder()))


def reactions() -> pd.DataFrame:
    rows = [
        (write(ring, chain), kind, ("north", "south")[n % 2])
        for n, (ring, chain) in enumerate(itertools.product(RINGS, CHAINS))
        for kind, write in REACTIONS.items()
    ]
    return pd.DataFrame(rows, columns=["text", "label", "site"])


def declared(task: dict[str, Any]) -> dict[str, Any]:
    source, adapter = {"source": f"bundled:{NAME}"}, {"layers": "all", "rank": 4}
    return {"study": {"name": "reactions"}, "model": source, "task": task, "adapter": adapter}


def test_a_real_language_model_fills_masks_right() -> None:
    model = build(parse(Study, declared({"kind": "masked-lm", "max_length": 64}), where="test"))
    rows = {"text": reactions()["text"].tolist()}
    records = model.kind.encode(rows, model.kind.processor(model.base_files)).records
    metrics = model.kind.metrics(evaluate(model, records, tokens=4096).evidence)
    assert metrics["masked_accuracy"] > 0.8, "one in four would be the most frequent symbol"


def test_a_real_model_learns_privately_at_two_sites(tmp_path: Path) -> None:
    scenario = Scenario.model_validate(
        declared({"kind": "sequence-classification", "labels": list(REACTIONS), "max_length": 64})
        | {
            "privacy": {"epsilon": 8.0, "sampling_rate": 0.5},
            "training": {"local_steps": 6},
            "federation": {"rounds": 3, "smallest_declared_size": 20},
            "simulation": {
                "seed": 7,
                "arms": ["federated"],
                "evaluate_every": 3,
                "data": {"source": "table.csv", "partition": {"by": "column", "column": "site"}},
            },
        }
    )
    reactions().to_csv(tmp_path / "table.csv", index=False)
    run = Run(scenario, tmp_path / "table.csv", tmp_path / "run", SilentProgress())
    run.open(resume=False)
    result = run.execute()
    assert result.arms["federated"].quality.value > 0.5, "four labels, each as frequent as the others"
    assert all(7.9 < spent.epsilon_rdp <= 8.0 for spent in result.privacy.values())
