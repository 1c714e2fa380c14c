"""Documents name only what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
    from simulations.scenario import load

    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "my-study.toml").write_text(blocks[0])
    assert load(tmp_path / "my-study.toml").as_study().task.labels == ("no", "yes")
