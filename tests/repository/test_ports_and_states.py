"""The page on ports, folders and states says what the code has."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from client.operator.status import STATES
from client.settings import Folders, NodeSettings, folders
from server.run_store.values import RunState
from server.settings import Home, ServerSettings
from shared.protocol.messages import Status
from tests.support.paths import ROOT

PAGE = (ROOT / "shared" / "PORTS_AND_STATES.md").read_text()


def rows(name: str) -> list[list[str]]:
    (table,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", PAGE, re.S)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def names(name: str) -> list[str]:
    return [row[0].strip("`") for row in rows(name)]


def test_ports_are_those_of_the_settings() -> None:
    shown = {row[1].strip("`"): int(row[2].strip("`")) for row in rows("ports")}
    keys = {key: field.default for key, field in ServerSettings.model_fields.items() if key.endswith("port")}
    assert shown == keys


def test_folders_are_those_of_a_server_and_of_a_node(tmp_path: Path) -> None:
    shown: dict[str, set[str]] = {"server": set(), "node": set()}
    for row in rows("folders"):
        shown[row[0]] |= set(re.findall(r"`([^`]+)`", row[1]))
    home = Home(tmp_path)
    places = (home.config, home.keys, home.runs, home.flower, home.running, home.logs)
    assert {path.name for path in places} == shown["server"]
    settings = NodeSettings()
    node = folders(tmp_path / "node.toml", settings)
    inside = set[str]()
    for field in fields(Folders):
        value = getattr(node, field.name)
        for path in value if isinstance(value, tuple) else (value,):
            if path.is_relative_to(node.home) and path != node.home:
                inside.add(path.relative_to(node.home).parts[0])
    assert inside == shown["node"]


def test_states_and_answers_are_those_of_the_code() -> None:
    assert names("run states") == list(get_args(RunState))
    assert names("process states") == list(STATES)
    assert sorted(names("answers")) == sorted(status.name.lower() for status in Status)
