"""The example package of the guide, installed by pip and used in a whole run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shared.errors import SettingsError
from simulations.experiment.partition import split
from simulations.experiment.partition_kinds import ByPlugin
from simulations.experiment.scenario import load
from simulations.progress import SilentProgress
from simulations.results.report import report_of
from simulations.results.result import Result
from simulations.results.wording import notes
from simulations.run import Run
from tests.support.documents import blocks
from tests.support.plugins import EXAMPLE, install_example, write_package

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
method = "head-only"
[training]
local_steps = 1
[federation]
rounds = 2
smallest_declared_size = 20
aggregation = "slow-start"
[simulation]
processes = 1
arms = ["federated", "personal"]
[simulation.data]
source = "table.csv"
partition = {{ by = "plug-in", name = "by-length", options = {{ column = "text", sites = 3 }} }}
"""
GUIDE = "simulations/PLUGINS.md"


def test_the_guide_shows_the_code_of_the_example() -> None:
    code, project = (EXAMPLE / "fedvault_example.py").read_text(), (EXAMPLE / "pyproject.toml").read_text()
    shown = blocks(GUIDE, "python")
    assert len(shown) == 2 and all(block in code for block in shown)
    assert all(block in project for block in blocks(GUIDE, "toml"))


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """One whole run with both plug-ins of the example and the arm of personal adapters."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "scenario.toml").write_text(SCENARIO.format(model=request.getfixturevalue("tiny_bert")))
    request.getfixturevalue("table").to_csv(folder / "table.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(install_example(folder))
        run = Run(load(folder / "scenario.toml"), folder / "table.csv", folder / "run", SilentProgress())
        run.open(resume=False)
        return folder / "run", run.execute()


@pytest.mark.integration
def test_the_example_is_installed_used_and_named_in_every_record(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    named = [(one.kind, one.name, one.package, one.version) for one in result.plugins]
    assert named == [
        ("aggregation", "slow-start", "fedvault-example", "1.0"),
        ("partitioner", "by-length", "fedvault-example", "1.0"),
    ]
    assert set(result.data) == {"length-0", "length-1", "length-2"}
    assert [one.outcome for one in result.rounds] == ["aggregated"] * 2
    sha256 = result.plugins[0].sha256
    card, said = (folder / "adapter" / "README.md").read_text(), notes(result)[-2:]
    for record in (card, report_of([result]).model_dump_json(), *said):
        assert sha256 in record and "fedvault-example" in record


@pytest.mark.integration
def test_the_arm_personal_is_without_privacy_and_measured_at_each_site(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    arm = result.arms["personal"]
    assert not arm.private and arm.epsilon is None and "WITHOUT PRIVACY" in arm.title and "protects nobody" in arm.note
    assert set(arm.quality.per_site) == set(result.final.per_site) and "personal" in result.differences
    assert arm.rows == sum(site.train for site in result.data.values())
    assert "personal WITHOUT PRIVACY" in (folder / "adapter" / "README.md").read_text()


def test_without_the_package_a_scenario_is_refused_by_name(tmp_path: Path, tiny_bert: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(SCENARIO.format(model=tiny_bert))
    with pytest.raises(SettingsError, match=r"federation\.aggregation among .*got 'slow-start'"):
        load(file)
    with pytest.raises(SettingsError, match=r"partition\.name to be an installed plug-in, got 'by-length'") as missing:
        load(file, ["federation.aggregation=ffa"])
    assert "pip install" in missing.value.hint


@pytest.fixture
def deal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., Any]:
    monkeypatch.syspath_prepend(tmp_path)

    def dealt(table: pd.DataFrame, body: str, **options: Any) -> dict[str, pd.DataFrame]:
        module = f"dealer_{abs(hash(request.node.name))}"
        code = f"def deal(table, *, seed, label_column, unit_column, size=1):\n    {body}\n"
        write_package(tmp_path, module, code, partitioners="deal=deal")
        return split(table, ByPlugin(by="plug-in", name="deal", options=options), label_column="label", seed=1)

    return dealt


def test_a_plug_in_names_the_site_of_each_row_and_gets_a_copy(deal: Any, table: pd.DataFrame) -> None:
    before = table.copy()
    body = "table['text'] = 'gone'; return [None if i % 3 else f'site {i % 2}' for i in range(len(table))]"
    parts = deal(table, body)
    assert list(parts) == ["site 0", "site 1"] and sum(map(len, parts.values())) == len(table) // 3
    assert table.equals(before) and "gone" not in set(pd.concat(parts.values()).text)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return ['a']", "1 for 360 rows"),
        ("return 'a' * len(table)", "a str"),
        ("return None", "a NoneType"),
        ("return [3] * len(table)", "3"),
        ("return [' '] * len(table)", "' '"),
        ("return [None] * len(table)", "None for all"),
        ("raise KeyError('text')", "KeyError: 'text'"),
    ],
)
def test_whatever_else_a_partition_does_is_one_sentence_that_names_it(
    deal: Any, table: pd.DataFrame, body: str, reason: str
) -> None:
    with pytest.raises(SettingsError, match=f"Expected the plug-in 'deal' of dealer_.* got {reason}"):
        deal(table, body)


def test_where_a_partition_failed_is_shown_to_whoever_asks_for_more(
    deal: Any, table: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "simulations")
    with pytest.raises(SettingsError):
        deal(table, "raise KeyError('text')")
    (line,) = caplog.records
    assert line.levelname == "INFO" and line.exc_info is not None and "KeyError" in caplog.text


def test_options_that_a_partition_does_not_know_are_refused(deal: Any, table: pd.DataFrame) -> None:
    with pytest.raises(SettingsError, match=r"take partition\.options.*unexpected keyword argument 'sizes'"):
        deal(table, "return ['a'] * len(table)", sizes=3)
