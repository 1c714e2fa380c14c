"""Whole sweeps over the tiny BERT: cut and continued, several at once, chosen on validation records."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from shared.errors import RunError, SettingsError
from simulations.api import compare, load_scenario, open_result, sweep
from simulations.cli import main
from simulations.experiment.split_rules import key_of
from simulations.results.result import Result
from simulations.sweeps import execution
from simulations.sweeps.cells import Cell, cells_of, read_axis
from simulations.sweeps.execution import Job, Outcomes, execute
from simulations.sweeps.outcome import Sweep, _plain_setting, summarise, write
from simulations.sweeps.text import render
from simulations.sweeps.tuning_cost import tuning_cost

OVER = {"privacy.epsilon": [2, 8], "simulation.seed": [1, 2]}
SCENARIO = """
[study]
name = "mine"
[model]
source = "{model}"
[task]
kind = "sequence-classification"
labels = ["no", "yes"]
max_length = 24
[adapter]
layers = "last:1"
[federation]
rounds = 1
smallest_declared_size = 20
[simulation]
processes = 1
arms = ["majority", "federated"]
[simulation.data]
source = "table.csv"
partition = {{ by = "column", column = "site" }}
"""


@pytest.fixture(scope="module")
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "mine.toml").write_text(SCENARIO.format(model=request.getfixturevalue("tiny_bert")))
    request.getfixturevalue("table").to_csv(folder / "table.csv", index=False)
    return folder / "mine.toml"


@pytest.fixture(scope="module")
def swept(file: Path) -> tuple[Path, Sweep, list[str]]:
    """A sweep that was cut in its third run and then went on, with the runs that were started, in order."""
    folder, started, whole = file.parent / "runs", list[str](), execution.run_job

    def counted(job: Job, processes: int | None = None) -> Result:
        started.append(job.cell.folder)
        if len(started) == 3:
            raise KeyboardInterrupt
        return whole(job, processes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "run_job", counted)
        with pytest.raises(KeyboardInterrupt):
            sweep(file, OVER, out=folder)
        assert not (folder / "sweep.json").exists(), "what is not finished shows no figures"
        first = (folder / "cells" / started[0] / "result.json").stat().st_mtime_ns
        made = sweep(file, OVER, out=folder)
    assert (folder / "cells" / started[0] / "result.json").stat().st_mtime_ns == first, "it was read, not run again"
    return folder, made, started


def test_a_stopped_sweep_goes_on_and_shows_every_cell(swept: tuple[Path, Sweep, list[str]]) -> None:
    folder, made, started = swept
    assert len(made.results) == 4 and len(set(started)) == 4 and not made.errors
    assert [row.seeds for row in made.rows] == [2, 2, 2, 2]
    table = pd.read_csv(folder / "table.csv")
    assert list(table["privacy.epsilon"]) == [2, 2, 8, 8] and list(table.arm[:2]) == ["majority", "federated"]
    ours = made.table[made.table.arm == "federated"]
    by_hand = [open_result(folder / "cells" / cell.folder).figures.final.value for cell in made.results]
    assert list(ours["mean"]) == pytest.approx([sum(by_hand[:2]) / 2, sum(by_hand[2:]) / 2])
    assert (ours.low <= ours["mean"]).all() and (ours["mean"] <= ours.high).all()
    assert not (folder / "cache").exists()


def test_settings_are_compared_by_pairs_of_one_seed(swept: tuple[Path, Sweep, list[str]]) -> None:
    _, made, _ = swept
    (one,) = made.against
    values = {cell.changes: result.final.value for cell, result in made.results.items()}
    pairs = [
        values[("privacy.epsilon=8", f"simulation.seed={seed}")]
        - values[("privacy.epsilon=2", f"simulation.seed={seed}")]
        for seed in (1, 2)
    ]
    assert one.compared.minus.value == pytest.approx(sum(pairs) / 2) and one.compared.seeds == 2


def test_the_picture_and_json_hold_every_setting(swept: tuple[Path, Sweep, list[str]]) -> None:
    folder, made, _ = swept
    assert made.picture.startswith("<svg") and "epsilon=2: federated" in made.picture
    written = json.loads((folder / "sweep.json").read_text())
    assert len(written["cells"]) == 4 and written["evaluated_on"] == "held-out"
    assert written["cost_of_choosing"]["epsilon"] > 8.0


def test_settings_that_are_numbers_are_numbers_in_tables(swept: tuple[Path, Sweep, list[str]]) -> None:
    folder, made, _ = swept
    epsilons = made.table["privacy.epsilon"]
    assert pd.api.types.is_numeric_dtype(epsilons) and set(epsilons) == {2, 8}
    assert [one["setting"] for one in json.loads((folder / "sweep.json").read_text())["against_first"]] == [
        {"privacy.epsilon": 8}
    ]
    assert repr(made) == "Sweep(4 runs, 0 failed: epsilon=2, epsilon=8)"


def test_several_at_once_give_the_same(file: Path, swept: tuple[Path, Sweep, list[str]]) -> None:
    folder, made, _ = swept
    again = sweep(file, OVER, out=folder, at_once=2)
    assert again.results == made.results, "all of them were read"


def test_the_command_prints_tables_and_what_choosing_would_cost(
    file: Path,
    swept: tuple[Path, Sweep, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = ["sweep", str(file), "--over", "privacy.epsilon=2,8", "--over", "simulation.seed=1,2"]
    monkeypatch.setattr("sys.argv", ["fedvault-sim", *typed, "--out", str(swept[0])])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "epsilon=2" in printed
    assert "would take 2 private runs on the same records" in printed and "do not choose a setting" in printed


def test_finished_runs_are_compared_by_what_they_differ_in(swept: tuple[Path, Sweep, list[str]]) -> None:
    folder, made, _ = swept
    runs = [open_result(folder / "cells" / cell.folder) for cell in made.results]
    compared = compare(runs)
    assert [row.quality for row in compared.rows] == [row.quality for row in made.rows]
    assert compare(made.results).table.equals(compared.table), "of a sweep as they are"
    with pytest.raises(SettingsError, match="the same one twice"):
        compare([runs[0], runs[0]])
    with pytest.raises(SettingsError, match="at least two"):
        compare(runs[:1])


def test_a_run_that_fails_is_named_and_the_others_go_on(
    file: Path, swept: tuple[Path, Sweep, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made, _ = swept
    first = next(iter(made.results)).folder

    def fails(job: Job, processes: int | None = None) -> Result:
        if job.cell.folder == first:
            raise RunError("Expected workers, got none.", hint="More memory.")
        return made.results[job.cell]

    monkeypatch.setattr(execution, "run_job", fails)
    again = sweep(file, OVER, out=folder.parent / "failing")
    assert list(again.errors.values()) == ["Expected workers, got none. More memory."] and len(again.results) == 3
    assert [row.seeds for row in again.rows] == [1, 1, 2, 2] and again.against[0].compared.seeds == 1
    nothing = summarise(Outcomes(dict.fromkeys(made.results, "gone")))
    assert nothing.as_dict()["rows"] == [] and len(nothing.as_dict()["failed"]) == 4


@pytest.mark.parametrize(
    ("message", "hint", "words"),
    [
        ("Expected a model, got none", "Fetch one.", "Expected a model, got none. Fetch one."),
        ("Expected a model, got none.", "", "Expected a model, got none."),
    ],
)
def test_where_every_run_fails_nothing_of_an_earlier_sweep_is_shown(
    file: Path,
    swept: tuple[Path, Sweep, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    message: str,
    hint: str,
    words: str,
) -> None:
    def fails(job: Job, processes: int | None = None) -> Result:
        raise RunError(message, hint=hint)

    write(swept[1], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.json", "table.csv", "sweep.svg"}
    monkeypatch.setattr(execution, "run_job", fails)
    typed = ["sweep", str(file), "--over", "privacy.epsilon=2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["fedvault-sim", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 1 and f"privacy.epsilon=2: {words}" in printed
    assert "sweep.json" in printed and "table.csv" not in printed and "sweep.svg" not in printed
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.json"}


def test_a_sweep_that_is_typed_again_meanwhile_is_refused_and_harms_nothing(
    file: Path, swept: tuple[Path, Sweep, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made, _ = swept
    refused = list[str]()

    def typed_again(job: Job, processes: int | None = None) -> Result:
        job.cache.mkdir(exist_ok=True)
        with pytest.raises(RunError, match="for this process alone") as again:
            sweep(file, OVER, out=folder)
        refused.append(str(again.value))
        assert job.cache.exists() and (folder / "table.csv").exists()
        return made.results[job.cell]

    monkeypatch.setattr(execution, "run_job", typed_again)
    assert len(sweep(file, OVER, out=folder).results) == len(refused) == 4


def test_a_setting_that_a_compared_run_lacks_is_missing_and_an_empty_text_is_none() -> None:
    assert _plain_setting((("a", ""), ("b", "null"), ("c", '""'), ("d", '"null"'), ("e", "2"))) == {
        "a": None, "b": None, "c": "", "d": "null", "e": 2,
    }  # fmt: skip


def test_the_best_setting_is_chosen_on_validation_records_alone(
    file: Path, swept: tuple[Path, Sweep, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made, _ = swept
    ran = list[tuple[str, ...]]()

    def stand_in(job: Job, processes: int | None = None) -> Result:
        evaluated = job.scenario().simulation.data.evaluate
        ran.append((evaluated, *job.cell.changes))
        better = dict(job.cell.setting)["privacy.epsilon"] == "2"
        result = made.results[job.cell]
        final = result.final.model_copy(update={"value": 0.9 if better else 0.1})
        return result.model_copy(update={"final": final, "evaluated_on": evaluated})

    monkeypatch.setattr(execution, "run_job", stand_in)
    chosen = sweep(file, OVER, out=file.parent / "chosen", choose=True)
    assert [one[0] for one in ran] == ["validation"] * 4 + ["held-out"] * 2
    assert {cell.setting for cell in chosen.results} == {(("privacy.epsilon", "2"),)}
    assert chosen.trial is not None and len(chosen.trial.results) == 4
    assert chosen.cost is not None and chosen.cost.settings == 2, "all that were tried are counted"


def stand_in(made: Sweep, values: dict[str, float], failing: set[tuple[str, str]]) -> Callable[..., Result]:
    """Runs that come to a value for each epsilon, but for those that fail, by epsilon and seed."""

    def run_job(job: Job, processes: int | None = None) -> Result:
        epsilon, seed = dict(job.cell.setting)["privacy.epsilon"], dict(job.cell.repeat)["simulation.seed"]
        if (epsilon, seed) in failing:
            raise RunError("Expected workers, got none.")
        result = made.results[job.cell]
        final = result.final.model_copy(update={"value": values[epsilon]})
        evaluated = job.scenario().simulation.data.evaluate
        return result.model_copy(update={"final": final, "evaluated_on": evaluated})

    return run_job


def test_a_setting_that_failed_at_a_seed_is_not_chosen(
    file: Path,
    swept: tuple[Path, Sweep, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = {"2": 0.7, "8": 0.9}
    monkeypatch.setattr(execution, "run_job", stand_in(swept[1], values, {("8", "2")}))
    chosen = sweep(file, OVER, out=tmp_path / "one", choose=True)
    assert {cell.setting for cell in chosen.results} == {(("privacy.epsilon", "2"),)}
    render(chosen, Console())
    assert "among the settings that finished at each seed: epsilon=2" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(execution, "run_job", stand_in(swept[1], values, {("2", "1"), ("8", "2")}))
    with pytest.raises(RunError, match="finished at each of its seeds") as ended:
        sweep(file, OVER, out=tmp_path / "none", choose=True)
    assert "Expected workers" in str(ended.value.hint)


def test_no_other_setting_takes_the_place_of_a_first_one_that_failed(
    file: Path,
    swept: tuple[Path, Sweep, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = {"2": 0.7, "8": 0.9, "1": 0.6}
    monkeypatch.setattr(execution, "run_job", stand_in(swept[1], values, {("1", "1"), ("1", "2")}))
    made = sweep(file, OVER | {"privacy.epsilon": [1, 2, 8]}, out=tmp_path / "run")
    assert len(made.results) == 4 and not made.against and made.first == (("privacy.epsilon", "1"),)
    render(made, Console())
    assert "Every run of the first setting, epsilon=1, failed" in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "run" / "sweep.json").read_text())["first_setting_failed"] is True
    assert not swept[1].first_failed


def test_nothing_runs_if_one_combination_is_no_scenario(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"(?s)privacy\.epsilon=-1: .*privacy\.epsilon"):
        sweep(file, {"privacy.epsilon": [8, -1]}, out=file.parent / "none")
    with pytest.raises(SettingsError, match="at_once=0"):
        sweep(file, {"privacy.epsilon": [8]}, out=file.parent / "none", at_once=0)
    assert not (file.parent / "none").exists()


def test_a_changed_scenario_in_a_sweeps_folder_is_refused_by_name(
    file: Path, swept: tuple[Path, Sweep, list[str]]
) -> None:
    again = execute(
        [
            Job(cell, file, ("training.learning_rate=9",), swept[0] / "cells" / cell.folder, swept[0] / "cache")
            for cell in cells_of([read_axis("privacy.epsilon=2"), read_axis("simulation.seed=1")])
        ]
    )
    assert "training.learning_rate was" in next(iter(again.errors.values()))


def test_a_finished_cell_is_not_read_for_a_table_that_has_changed(
    file: Path, swept: tuple[Path, Sweep, list[str]], tmp_path: Path
) -> None:
    again = Path(shutil.copytree(file.parent, tmp_path / "again", symlinks=True)) / file.name
    assert sweep(again, OVER, out=again.parent / "runs").results == swept[1].results, "the same table is the same data"
    table = pd.read_csv(again.parent / "table.csv")
    table.iloc[1:].to_csv(again.parent / "table.csv", index=False)
    made = sweep(again, OVER, out=again.parent / "runs")
    assert not made.results and len(made.errors) == 4
    assert all("got other contents of simulation.data.source" in error for error in made.errors.values())


def test_runs_of_another_precision_are_another_setting(swept: tuple[Path, Sweep, list[str]]) -> None:
    one = next(iter(swept[1].results.values()))
    performance = one.scenario["performance"] | {"precision": "bfloat16", "threads": 3}
    half = one.model_copy(update={"scenario": one.scenario | {"performance": performance}})
    settings = [cell.setting for cell in compare([one, half]).results]
    assert settings == [(("performance.precision", '"float32"'),), (("performance.precision", '"bfloat16"'),)]


def test_choosing_costs_what_the_runs_cost_together(file: Path) -> None:
    studies = [load_scenario(file, {"privacy.epsilon": value}).declared.as_study() for value in (2, 8)]
    cost = tuning_cost(studies, sites=3)
    assert cost.largest == pytest.approx(8.0, abs=0.05) and 8.0 < cost.epsilon < 10.0 + 1e-6
    assert tuning_cost(studies[:1], sites=3).epsilon == pytest.approx(2.0, abs=0.05)


def test_settings_of_the_data_alone_cost_nothing_to_choose_and_no_sentence_says_that_one_was_run(
    swept: tuple[Path, Sweep, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    one = next(iter(swept[1].results.values()))
    alphas = [Cell((("simulation.data.partition.alpha", alpha),), ()) for alpha in ("0.1", "1")]
    made = summarise(Outcomes(dict.fromkeys(alphas, one)))
    assert made.cost is None and len(made.rows) == 4
    render(made, Console())
    assert "single setting" not in capsys.readouterr().out
    assert summarise(Outcomes({alphas[0]: one})).cost is not None, "what one setting costs is its own"
    half = one.model_copy(update={"scenario": one.scenario | {"performance": {"precision": "bfloat16"}}})
    both = summarise(Outcomes(zip(alphas, (one, half), strict=True)))
    assert both.cost is not None and both.cost.settings == 2, "another precision is another private run"


@pytest.mark.parametrize(("name", "changes"), [("holdout", True), ("noise", False), ("batches", False)])
def test_each_seed_changes_its_own_source_alone(file: Path, name: str, changes: bool) -> None:
    plain = load_scenario(file, {"simulation.seed": 3}).declared
    apart = load_scenario(file, {"simulation.seed": 3, f"simulation.seeds.{name}": 4}).declared
    assert (key_of("roles", plain) != key_of("roles", apart)) is changes
    assert apart.simulation.seed_of(name) == 4 and apart.simulation.seed_of("split") == 3
    assert "seeds" not in plain.model_dump()["simulation"], "scenarios of before can be resumed"


def test_noise_and_batches_have_seeds_of_their_own() -> None:
    from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

    def drawn(seed: int, noise_seed: int | None = None) -> tuple[Any, Any]:
        step = SeededRandomnessForSimulation(seed, "federated", 1, noise_seed=noise_seed).step()
        return [*step.poisson_batch(100, 0.5)], [*step.discrete_gaussian(20, 5.0)]

    batches, noise = drawn(1)
    assert drawn(1, noise_seed=2) == (batches, drawn(2)[1]) and drawn(1, noise_seed=1) == (batches, noise)
    assert drawn(2)[0] != batches and drawn(2)[1] != noise
