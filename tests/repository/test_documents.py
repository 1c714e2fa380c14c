"""Documents name only what is there."""

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_and_make_target_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:shared|client|server|simulations|tests)/[\w./-]*)`", text)
    missing = [path for path in [*linked, *paths] if not (ROOT / path).exists() and not (ROOT / f"{path}.md").exists()]
    assert missing == []
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", re.sub(r"(?<!`)make (?!\w+ *#)(?![\w-]+`)", "", text))) <= targets


def test_the_readmes_scenario_is_a_valid_one(tmp_path: Path) -> None:
    from simulations.experiment.scenario import load

    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "my-study.toml").write_text(blocks[0])
    assert load(tmp_path / "my-study.toml").as_study().task.labels == ("no", "yes")


def test_the_readmes_snippets_are_the_ones_that_are_run() -> None:
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```\n<!-- /snippet -->", text, re.S)
    assert [name for name, _ in shown] == ["generate", "classify"]
    for name, code in shown:
        assert code == (ROOT / "tests" / "snippets" / f"{name}.py").read_text()


def test_the_readmes_table_names_every_task_kind_and_scenarios_that_ship() -> None:
    from shared.study.tasks import KINDS
    from simulations.experiment.catalogue import catalogue

    table = re.findall(r"<!-- families -->\n(.*?)<!-- /families -->", (ROOT / "README.md").read_text(), re.S)[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    assert {row[1].strip(" `") for row in rows} == KINDS.keys()
    ships = {Path(entry.file).stem: entry.task for entry in catalogue()}
    for row in rows:
        for name in re.findall(r"`([\w-]+)`", row[5]):
            assert ships[name] == row[1].strip(" `")
