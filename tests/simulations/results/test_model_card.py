"""The card beside a simulation's adapter: what it is, its figures, and code that runs; no word of this machine."""

from pathlib import Path

import pytest

from server.export.adapter import merge
from shared.study.parsing import parse
from simulations.experiment.scenario import Scenario
from simulations.progress import SilentProgress
from simulations.results.metric_names import shown
from simulations.results.result import Result
from simulations.run import Run
from tests.support.documents import fenced
from tests.support.handed_out import unfit

pytestmark = pytest.mark.integration
COLUMN = {"by": "column", "column": "site"}
ARMS = ["majority", "federated", "without-privacy"]


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder with a finished run, and the base model beside it as `base`, which is what its scenario calls it."""
    folder = tmp_path_factory.mktemp("card")
    (folder / "base").symlink_to(request.getfixturevalue("tiny_bert"))
    table = request.getfixturevalue("table")
    table.assign(site=table["site"].replace("north", "north|<west>")).to_csv(folder / "table.csv", index=False)
    declared = {
        "study": {"name": "card"},
        "model": {"source": "base"},
        "task": {"kind": "sequence-classification", "labels": ["no", "yes"], "max_length": 24},
        "adapter": {"layers": "last:1"},
        "federation": {"rounds": 1, "smallest_declared_size": 20},
        "simulation": {"arms": ARMS, "data": {"source": str(folder / "table.csv"), "partition": COLUMN}},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = Run(parse(Scenario, declared, where="test"), folder / "table.csv", folder / "run", SilentProgress())
        run.open(resume=False)
        result = run.execute()
    (folder / "adapter").symlink_to(folder / "run" / "adapter")
    return folder, result


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers for it
def test_a_simulations_card_says_what_it_is_and_runs_as_it_stands(
    finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, exported = finished
    monkeypatch.chdir(folder)
    card = Path("adapter/README.md").read_text()
    assert "simulation on one machine, and not private" in card and "by 3 simulated sites in 1 rounds" in card
    assert "Records of `table.csv`" in card and "| north\\|&lt;west> |" in card
    for name, arm in exported.arms.items():
        assert f"| {arm.title} |" in card and f"| {shown(arm.quality.value)} |" in card, name
    for site, spent in exported.privacy.items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {site[:5]}") and "1e-05" in line)
        assert spent.epsilon_rdp <= float(row.split("|")[-3]) <= spent.epsilon_rdp + 0.001
    for block in fenced(card, "python"):
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102 - the card's own lines
    assert capsys.readouterr().out.count("[") == 3, "the adapter, the merged model and FedVault each answer"


def test_nothing_that_a_simulation_exports_is_an_empty_form_or_names_this_machine(
    finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(finished[0])
    merge(Path("adapter"), tmp_path / "merged")
    for folder in (Path("run/adapter"), tmp_path / "merged"):
        assert (folder / "README.md").exists() and unfit(folder) == []
