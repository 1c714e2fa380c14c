"""Base models that are here."""

import json
from collections.abc import Callable
from pathlib import Path

from client.operator.doctor import examine
from client.settings import load_node

Command = Callable[..., tuple[int, str, str]]


def test_models_are_listed_by_the_fingerprints_that_a_policy_takes(node: Command, study: Callable[..., str]) -> None:
    study()
    found = {Path(one["folder"]).name: one["fingerprint"] for one in json.loads(node("models", "--json")[1])}
    assert found["tiny"] in Path("node.toml").read_text()
    printed = node("models")[1]
    assert printed.startswith("[models]\n") and f'\ntiny = "{found["tiny"]}"' in printed


def test_a_model_may_be_named_once_it_is_pinned(node: Command, study: Callable[..., str]) -> None:
    study()
    lines = [line for line in node("models")[1].splitlines() if line.startswith(("[models]", "tiny ="))]
    config = Path("node.toml")
    fingerprint = lines[1].split('"')[1]
    config.write_text(
        "\n".join(lines) + "\n" + config.read_text().replace(f'models = ["{fingerprint}"]', 'models = ["tiny"]')
    )
    assert load_node(config).datasets["ward"].models == (fingerprint,)
    assert "ok     ward: base models: tiny" in node("doctor")[1]
    Path("models/tiny/config.json").write_text(Path("models/tiny/config.json").read_text() + "\n")
    said = node("doctor")[1]
    assert "FAILED ward: base models" in said and "so: studies of that model are refused" in said
    config.write_text(config.read_text().replace('["tiny"]', '["tinny"]'))
    assert "[models] has no 'tinny'; it has 'tiny'" in node("doctor")[1]


def test_a_check_is_named_before_it_is_made(node: Command, study: Callable[..., str], tmp_path: Path) -> None:
    study()
    begun: list[str] = []
    for finding in examine(tmp_path / "node.toml", begins=begun.append):
        assert finding.check in (*begun[-1:], "settings", "membership"), "no result before its check was named"
    assert "ward: data" in begun
    code, printed, beside = node("doctor")
    assert code and "...    ward: data" in beside and "...    ward" not in printed


def test_a_folder_is_listed_by_both_fingerprints_where_they_differ(node: Command, study: Callable[..., str]) -> None:
    study()
    Path("models", "tiny", "special_tokens_map.json").write_text('{"pad_token": "[PAD]"}')
    found = {Path(one["folder"]).name: one for one in json.loads(node("models", "--json")[1])}["tiny"]
    assert found["fingerprint"] != found["fingerprint_version_2"]
    line = (
        f'tiny-2 = "{found["fingerprint_version_2"]}"  # {found["folder"]}, in studies with model.fingerprint_version'
    )
    assert line in node("models")[1]
