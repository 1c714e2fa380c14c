"""Base models that are here."""

import json
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., tuple[int, str, str]]


def test_models_are_listed_by_the_fingerprints_that_a_policy_takes(node: Command, study: Callable[..., str]) -> None:
    study()
    found = {Path(one["folder"]).name: one["fingerprint"] for one in json.loads(node("models", "--json")[1])}
    assert found["tiny"] in Path("node.toml").read_text()
    assert f"{found['tiny']}  " in node("models")[1]


def test_a_folder_is_listed_by_both_fingerprints_where_they_differ(node: Command, study: Callable[..., str]) -> None:
    study()
    Path("models", "tiny", "special_tokens_map.json").write_text('{"pad_token": "[PAD]"}')
    found = {Path(one["folder"]).name: one for one in json.loads(node("models", "--json")[1])}["tiny"]
    assert found["fingerprint"] != found["fingerprint_version_2"]
    assert f"{found['fingerprint_version_2']}  {found['folder']}  (model.fingerprint_version = 2)" in node("models")[1]
