"""A search between bounds: by validation records, continued, and towards what is better."""

import json
import math
from pathlib import Path

import pytest

from shared.errors import SettingsError
from simulations.cli import main
from simulations.results.result import Result
from simulations.sweeps import execution, search
from simulations.sweeps.execution import Job
from simulations.sweeps.order import Order
from simulations.sweeps.search import Range, read_range
from tests.simulations.sweeps.test_sweep import SCENARIO

RATE = "training.learning_rate"


@pytest.fixture(scope="module")
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    scenario = SCENARIO.replace('"majority", ', "")
    (folder / "mine.toml").write_text(scenario.format(model=request.getfixturevalue("tiny_bert")))
    request.getfixturevalue("table").to_csv(folder / "table.csv", index=False)
    return folder / "mine.toml"


@pytest.fixture(scope="module")
def searched(file: Path) -> Path:
    folder = file.parent / "runs"
    options = ["--between", f"{RATE}=0.5..50", "--trials", "2", "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedvault-sim", "search", str(file), *options])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    return folder


def test_the_best_on_validation_records_runs_on_the_held_out_ones(searched: Path) -> None:
    made = json.loads((searched / "sweep.json").read_text())
    trial = made["chosen_on_validation"]
    assert len(trial["cells"]) == 2 and trial["evaluated_on"] == "validation" and made["evaluated_on"] == "held-out"
    best = max(trial["cells"], key=lambda cell: cell["value"])
    assert [cell["changes"] for cell in made["cells"]] == [best["changes"]]
    assert made["cost_of_choosing"]["settings"] == 2, "each setting that was tried counts"


def test_a_search_goes_on_with_more_trials(searched: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = Result.model_validate_json(next(searched.glob("validation/*/result.json")).read_text())
    before = {path.parent.name for path in searched.glob("validation/*/result.json")}
    tried = list[str]()

    def known(job: Job, _processes: int | None = None) -> Result:
        tried.append(job.cell.folder)
        return execution.run_job(job) if (job.folder / "result.json").exists() else result

    monkeypatch.setattr(search, "attempt", known)
    monkeypatch.setattr(execution, "attempt", known)
    search.search(Order(file, (), (), searched), [read_range(f"{RATE}=0.5..50")], trials=4)
    assert set(tried[:2]) == before and len(set(tried[:4])) == 4


def test_proposals_come_closer_to_what_is_better(
    searched: Path, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result, tried = Result.model_validate_json(next(searched.glob("validation/*/result.json")).read_text()), [0.0]

    def made_up(job: Job, _processes: int | None = None) -> Result:
        tried.append(float(dict(job.cell.setting)[RATE]))
        value = -abs(math.log(tried[-1] / 7))
        return result.model_copy(update={"final": result.final.model_copy(update={"value": value})})

    monkeypatch.setattr(search, "attempt", made_up)
    monkeypatch.setattr(execution, "attempt", made_up)
    search.search(Order(file, (), (), tmp_path / "made-up"), [read_range(f"{RATE}=0.1..1000")], trials=40)
    first, rest = tried[1:11], tried[11:41]
    assert min(abs(math.log(rate / 7)) for rate in rest) < 0.3
    near = [sum(abs(math.log(rate / 7)) < 1.5 for rate in part) / len(part) for part in (first, rest)]
    assert near[1] > near[0]


def test_ranges_are_read_and_mistakes_said_at_once(file: Path) -> None:
    assert read_range("federation.rounds=2..9") == Range("federation.rounds", 2, 9, integer=True)
    assert not read_range("training.learning_rate=1..9.5").integer
    for wrong in ("training.learning_rate", "rate=1..2", "training.learning_rate=2..1", "training.learning_rate=a..b"):
        with pytest.raises(SettingsError, match="Expected --between"):
            read_range(wrong)
    with pytest.raises(SettingsError, match=r"privacy\.sampling_rate=1\.5"):
        search.search(
            Order(file, (), (), file.parent / "wrong"), [Range("privacy.sampling_rate", 0.1, 1.5, False)], trials=1
        )
    assert not (file.parent / "wrong").exists()
