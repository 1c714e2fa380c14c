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
