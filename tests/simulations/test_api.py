"""The Python interface: what the notebook shows, what scripts get, and mistakes in one clear error."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shared.errors import SettingsError
from simulations.api import Result, explain, load_scenario, open_result, plan, run, sweep
from simulations.results.curves import curves_of
from simulations.results.frames import COLUMNS
from simulations.sweeps.changes import as_toml
from tests.support.documents import blocks
from tests.support.paths import ROOT

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
rounds = 2
smallest_declared_size = 20
[simulation]
seed = 7
processes = 1
curves = "all"
predictions = true
update_norms = true
arms = ["federated", "without-privacy"]
[simulation.data]
source = "table.csv"
partition = {{ by = "column", column = "site" }}
"""
SCRIPT = """
from simulations.api import load_scenario, run
print(run(load_scenario("mine.toml", {"federation.rounds": 2}), out="runs/script").arms.value["federated"])
"""


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    (folder / "mine.toml").write_text(SCENARIO.format(model=request.getfixturevalue("tiny_bert")))
    request.getfixturevalue("table").to_csv(folder / "table.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    return run(load_scenario(folder / "mine.toml"), out=folder / "runs" / "mine")


@pytest.mark.slow
def test_a_script_of_three_lines_needs_no_guard(folder: Path, result: Result) -> None:
    """No `if __name__ == "__main__"`: workers do not run the script that started them."""
    (folder / "script.py").write_text(SCRIPT)
    command, here = [sys.executable, "script.py"], os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0 and ran.stderr == "", ran.stderr
    assert float(ran.stdout) == result.figures.final.value


def test_frames_hold_the_figures_of_the_result(result: Result) -> None:
    figures = result.figures
    assert result.arms.value.to_dict() == {name: arm.quality.value for name, arm in figures.arms.items()}
    assert list(result.rounds.index) == [1, 2] and result.rounds.value[2] == figures.final.value
    assert result.rounds["metric:accuracy"][2] == figures.final.metrics["accuracy"]
    assert result.sites.federated.to_dict() == figures.final.per_site
    assert result.sites.train.sum() == figures.arms["federated"].rows
    assert result.privacy.epsilon_rdp.to_dict() == {name: one.epsilon_rdp for name, one in figures.privacy.items()}


def test_every_arm_has_its_curve_and_every_site_all_metrics(result: Result) -> None:
    arms, curves, metrics = result.figures.arms, result.curves, result.metrics
    rounds = {name: sorted(set(curves[curves.arm == name]["round"])) for name in arms}
    assert rounds == {"federated": [1, 2], "without-privacy": [1, 2]}
    main = arms["without-privacy"].quality.metric
    for name, arm in arms.items():
        last = curves[(curves.arm == name) & (curves["round"] == 2) & (curves.metric == main)]
        assert last.dropna().set_index("site").value.to_dict() == arm.quality.per_site
        assert last[last.site.isna()].value.item() == arm.quality.value
        of_arm = metrics[metrics.arm == name]
        assert set(of_arm.metric) == set(arm.quality.metrics) and set(of_arm.site) == set(arm.quality.per_site)
        shown = of_arm[of_arm.metric == main].set_index("site").value.to_dict()
        assert shown == arm.quality.per_site
    assert arms["federated"].curve == {}, "the study's own is under rounds"


def test_predictions_lead_to_the_metrics_that_are_reported(result: Result) -> None:
    told = result.predictions
    evidence = told.evidence.map(json.loads)
    assert set(told.site) == set(result.figures.data) and set(told.arm) == set(result.figures.arms)
    of_arm = told.assign(right=[guess == truth for guess, truth, *_ in evidence]).groupby("arm").right.mean()
    for name, arm in result.figures.arms.items():
        assert of_arm[name] == pytest.approx(arm.quality.metrics["accuracy"])
    assert set(told.prediction) <= {"no", "yes"} and told.score.between(0, 1).all()


def test_predictions_lead_to_the_rows_that_they_are_of(result: Result, folder: Path) -> None:
    table, answers = pd.read_csv(folder / "table.csv"), result.predictions
    rows = table.iloc[answers.row - 1].reset_index(drop=True)
    assert (rows.site == answers.site).all() and (rows.label == answers.truth).all()
    assert ((answers.prediction == answers.truth) == (answers.score == 1)).all()
    dealt_out = pd.read_csv(result.folder / "prepared" / "partition.csv").set_index("row").site
    assert (dealt_out[answers.row].to_numpy() == answers.site).all(), "rows are counted as there"


def test_lengths_of_updates_are_kept_and_are_mostly_noise(result: Result, folder: Path) -> None:
    norms = result.update_norms
    assert len(norms) == 2 * len(result.figures.data) and set(norms["round"]) == {1, 2}
    first = norms[norms["round"] == 1].set_index("site").norm
    scaled = first * result.privacy.declared_size
    assert scaled.max() < 1.2 * scaled.min(), "noise alone, which a larger site divides by more"
    with pytest.raises(SettingsError, match="hides each update"):
        load_scenario(folder / "mine.toml", {"federation.secure_sum": "masked", "federation.quorum": 3})


def test_a_run_leaves_its_frames_as_parquet(result: Result, tmp_path: Path) -> None:
    names = {"rounds", "sites", "arms", "privacy", "metrics", "curves", "predictions", "update_norms"}
    assert {path.stem for path in (result.folder / "tables").iterdir()} == names
    stored = pd.read_parquet(result.folder / "tables" / "arms.parquet").set_index("arm")
    assert stored.value.to_dict() == result.arms.value.to_dict()
    with pytest.raises(SettingsError, match="Expected predictions in"):
        _ = Result(result.figures, tmp_path).predictions


def test_every_column_of_every_table_is_explained(result: Result) -> None:
    several = {"sites": set(result.figures.arms)}
    for path in sorted((result.folder / "tables").iterdir()):
        written, explained = set(pd.read_parquet(path).columns), {name.strip("`") for name in COLUMNS[path.stem]}
        plain = {name for name in written if not name.startswith("metric:")} - several.get(path.stem, set())
        assert plain == explained - {"metric:NAME", "ARM"}, path.stem
    assert len([*(result.folder / "tables").iterdir()]) == len(COLUMNS)


def test_the_guides_example_shows_progress(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [code for code in blocks("simulations/README.md", "python") if "TerminalProgress" in code]
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"run": run}
    exec(example.replace("simulations/scenarios/health-tweets.toml", "mine.toml"), names)  # noqa: S102 - our own guide
    assert "federated: round   2  accuracy" in capsys.readouterr().out


def test_mlflow_gets_every_arm_by_round_and_every_site(result: Result) -> None:
    figures, curves = result.figures, curves_of(result.figures, result.folder).rounds
    for number, one in enumerate(figures.rounds, start=1):
        assert one.evaluation is not None
        at_sites = {site: curves[number][f"sites/{site}/{one.evaluation.metric}"] for site in figures.data}
        assert at_sites == one.evaluation.per_site
        of_arm = figures.arms["without-privacy"].curve[number].metrics
        assert {name: curves[number][f"without-privacy/{name}"] for name in of_arm} == of_arm
    last_alone = {name: arm.model_copy(update={"curve": {}}) for name, arm in figures.arms.items()}
    rounds = curves_of(figures.model_copy(update={"arms": last_alone}), result.folder).rounds
    assert [number for number, one in rounds.items() if "without-privacy/accuracy" in one] == [2]


def test_pictures_are_svg_that_a_notebook_draws(result: Result) -> None:
    assert set(result.pictures) == {"arms", "differences", "rounds"}
    assert all(picture._repr_svg_().startswith("<svg") for picture in result.pictures.values())
    assert "WITHOUT PRIVACY" in result.pictures["arms"] and "Round by round" in result.pictures["rounds"]


def test_the_adapter_is_a_peft_model_that_moves_the_base_models_output(result: Result) -> None:
    import torch

    adapter, tokens = result.adapter(), torch.tensor([[2, 7, 9, 3]])
    with torch.no_grad():
        tuned = adapter(input_ids=tokens).last_hidden_state
        with adapter.disable_adapter():
            assert not torch.equal(tuned, adapter(input_ids=tokens).last_hidden_state)
    assert result.predict({"text": ["good word1"]})[0] in ("no", "yes")


def test_an_answer_is_explained_by_its_words(result: Result) -> None:
    (explained,) = explain(result, {"text": ["good word1"]})
    assert explained.answer == result.predict({"text": ["good word1"]})[0]


def test_the_notebook_runs_from_top_to_bottom(
    folder: Path, result: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = json.loads((ROOT / "simulations" / "notebook.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [place for place, cell in enumerate(code) if "parameters" in cell["metadata"].get("tags", [])] == [0]
    names: dict[str, Any] = {}
    exec("".join(code[0]["source"]), names)  # noqa: S102 - our own notebook
    monkeypatch.chdir(ROOT)
    assert load_scenario(names["scenario"], names["changes"]), "as it ships"
    monkeypatch.chdir(folder)
    names |= {"scenario": "mine.toml", "changes": {"federation.rounds": 2}, "out": "runs/mine"}
    for cell in code[1:]:
        exec("".join(cell["source"]), names)  # noqa: S102
    assert "trainable params" in capsys.readouterr().out
    assert names["result"].figures == result.figures


def test_a_plan_comes_as_a_frame_and_a_verdict(folder: Path) -> None:
    planned = plan(load_scenario(folder / "mine.toml", {"privacy.epsilon": 1}))
    assert list(planned.nodes.name) == ["east", "north", "south"] and planned.verdict.endswith(".")
    assert list(plan(folder / "mine.toml", sizes=[300, 900]).nodes.declared_size) == [300, 900]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda at: load_scenario(at / "absent.toml"), "absent.toml, which is not there"),
        (lambda at: load_scenario(at / "mine.toml", {"privacy.epsilons": 1}), "privacy.epsilons: no such key"),
        (lambda at: load_scenario(at / "mine.toml", {"privacy.epsilon": None}), "a value that TOML can hold, got None"),
        (lambda at: load_scenario(at / "mine.toml", "privacy.epsilon=1"), "changes by key or a list"),
        (lambda at: load_scenario(at / "mine.toml", [("privacy.epsilon", 1)]), "changes by key or a list"),  # type: ignore[list-item]
        (lambda at: run(at / "mine.toml", 3), "changes by key or a list of key=value, got 3"),  # type: ignore[arg-type]
        (lambda at: run(at / "mine.toml", {"privacy.epsilon": -3}), "privacy.epsilon"),
        (lambda at: sweep(at / "mine.toml", {"privacy.epsilon": 3}), "a list of values for each key"),  # type: ignore[dict-item]
        (lambda at: sweep(at / "mine.toml", ["privacy.epsilon=3"]), "a list of values for each key"),  # type: ignore[arg-type]
        (lambda at: open_result(at), "result.json, got nothing"),
    ],
)
def test_every_mistake_is_one_clear_error(folder: Path, call: Callable[[Path], Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        call(folder)


def test_values_are_written_as_toml_reads_them() -> None:
    import tomllib

    for value in (True, 3, 0.5, 'a "b"\n', [1, 2], {"text": "a b"}, ["federated"]):
        assert tomllib.loads(f"value = {as_toml(value)}")["value"] == value


def test_numbers_of_numpy_and_fractions_are_values_too() -> None:
    from fractions import Fraction

    given = [np.int64(3), np.float32(0.5), np.bool_(True), np.arange(2), Fraction(1, 2), pd.Series([1, 2])]
    assert [as_toml(value) for value in given] == ["3", "0.5", "true", "[0, 1]", "0.5", "[1, 2]"]


def test_a_result_shows_itself_in_one_short_line(result: Result) -> None:
    shown = repr(result)
    assert shown.startswith("Result(mine, seed 7, ε = ") and "accuracy: federated 0." in shown
    assert "\n" not in shown and len(shown) < 200 + len(str(result.folder))


def test_a_head_alone_is_no_peft_model(tmp_path: Path, tiny_bert: Path, table: pd.DataFrame) -> None:
    from server.export.adapter import as_peft, export
    from shared.adapted_model.model import initial_adapter

    (tmp_path / "mine.toml").write_text(SCENARIO.format(model=tiny_bert))
    table.to_csv(tmp_path / "table.csv", index=False)
    head = {"adapter.method": "head-only", "adapter.layers": "all"}
    study = load_scenario(tmp_path / "mine.toml", head).declared.as_study()
    export(study, initial_adapter(study), tmp_path / "adapter")
    with pytest.raises(SettingsError, match="got a head alone"):
        as_peft(tmp_path / "adapter")
