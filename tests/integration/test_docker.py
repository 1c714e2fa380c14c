"""The containers keep data and network apart, and the files that say so are valid."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from client.settings import folders, load_node

DOCKER = Path("docker")
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VAULTS = [name for name in SERVICES if name.endswith("-vault")]
LINKS = [name for name in SERVICES if name.endswith("-link")]
DASHBOARDS = [name for name in SERVICES if name.endswith("-dashboard")]


def mounts(service: str) -> dict[str, tuple[str, bool]]:
    """What a service mounts where, and whether it may write."""
    found = {}
    for volume in SERVICES[service]["volumes"]:
        source, target, *mode = volume.split(":")
        found[target] = (source, mode != ["ro"])
    return found


def test_there_is_one_server_and_three_nodes() -> None:
    assert len(VAULTS) == len(LINKS) == len(DASHBOARDS) == 3
    assert set(SERVICES) == {"server", *VAULTS, *LINKS, *DASHBOARDS}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert ("ports" in service) == (name == "server" or name in DASHBOARDS)


@pytest.mark.parametrize("name", VAULTS)
def test_a_vault_has_no_network_and_cannot_write_to_its_data(name: str) -> None:
    found = mounts(name)
    assert SERVICES[name]["network_mode"] == "none"
    assert not found["/node/data"][1] and not found["/node/models"][1] and not found["/node/settings"][1]
    assert found["/node/home"][1] and found["/node/ledger-copy"][1]
    assert found["/node/home"][0] != found["/node/ledger-copy"][0]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_sees_the_socket_and_its_key_and_nothing_else(name: str) -> None:
    assert set(mounts(name)) == {"/node/settings", "/node/home/run", "/node/home/link"}
    vault = name.replace("-link", "-vault")
    assert mounts(name)["/node/home/run"] == mounts(vault)["/node/home/run"]
    assert "/node/home/link" not in mounts(vault)
    assert SERVICES[name]["user"].split(":")[1] == SERVICES[vault]["user"].split(":")[1]
    assert SERVICES[name]["user"] != SERVICES[vault]["user"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_an_operators_page_sees_its_socket_alone_and_is_published_on_this_machine_alone(name: str) -> None:
    service, vault = SERVICES[name], name.replace("-dashboard", "-vault")
    assert set(mounts(name)) == {"/node/settings", "/node/home/operator"} and not mounts(name)["/node/settings"][1]
    assert mounts(name)["/node/home/operator"] == mounts(vault)["/node/home/operator"]
    assert service["user"] == SERVICES[vault]["user"] and service["profiles"] == ["dashboard"]
    (port,) = service["ports"]
    assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) and port.split(":")[1] in service["command"]
    assert "--allow-decisions" not in service["command"]
    others = [other for other in SERVICES if other != name]
    assert not any(set(service["networks"]) & set(SERVICES[other].get("networks", ["default"])) for other in others)
    assert len({SERVICES[other]["ports"][0] for other in DASHBOARDS}) == 3, "cookies and ports of their own"


@pytest.mark.parametrize("name", LINKS)
def test_no_link_mounts_the_socket_that_decides(name: str) -> None:
    places = folders(Path("/node/settings/node.toml"), load_node(DOCKER / "node.example.toml"))
    assert str(places.operator_socket.parent) == "/node/home/operator"
    assert not any(str(places.operator_socket).startswith(target) for target in mounts(name))


def test_each_container_knows_which_half_of_the_node_it_is() -> None:
    sides = {name: SERVICES[name]["environment"] for name in (*VAULTS, *LINKS, *DASHBOARDS)}
    assert sides == {name: {"FEDVAULT_DEPLOYMENT": name.split("-")[1]} for name in sides}


def test_the_server_reads_base_models_and_studies_and_cannot_write_them() -> None:
    found = mounts("server")
    assert not found["/models"][1] and not found["/studies"][1]
    assert "FEDVAULT_DATA=/" in (DOCKER / "server.Dockerfile").read_text()


def test_compose_accepts_the_file(not_here: Callable[[str], NoReturn]) -> None:
    tool = shutil.which("docker-compose")
    if tool is None:
        not_here("docker-compose is not installed; it runs where Debian's docker-compose is (apt-get install)")
    command = [tool, "-f", str(DOCKER / "compose.yaml"), "config", "--quiet"]
    # it is a Python program itself: what this process looks modules up by must not reach it
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["server", "node"])
def test_hadolint_finds_nothing(name: str) -> None:
    tool = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([tool, DOCKER / f"{name}.Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_example_settings_are_valid() -> None:
    settings = load_node(DOCKER / "node.example.toml")
    assert settings.node.socket_group == 10010
    assert SERVICES["north-link"]["user"].endswith(":10010")


UNITS = ["fedvault-node", "fedvault-server"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_container_prints_does_not_fill_the_disk(name: str) -> None:
    logging = SERVICES[name]["logging"]
    assert logging["driver"] == "json-file" and logging["options"] == {"max-size": "10m", "max-file": "4"}


@pytest.mark.parametrize("name", [*VAULTS, *LINKS])
def test_a_nodes_health_is_asked_of_what_runs_and_not_of_a_file(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][:4] == ["CMD", "fedvault-node", "status", "--check"]


@pytest.mark.parametrize("name", UNITS)
def test_a_systemd_unit_gives_nothing_away(name: str) -> None:
    unit = configparser.ConfigParser(strict=False, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DOCKER / f"{name}.service")
    service = unit["Service"]
    assert service["User"] == name and service["CapabilityBoundingSet"] == ""
    assert all(service[key] == "true" for key in ("NoNewPrivileges", "PrivateTmp", "ProtectHome"))
    assert service["ProtectSystem"] == "strict" and service["Restart"] == "always"
    assert service["ExecStart"].startswith(f"/opt/fedvault/bin/{name} start --")
    assert service["ExecStart"].split()[-1].startswith(f"/var/lib/{service['StateDirectory']}/")


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(name: str, tmp_path: Path, not_here: Callable[[str], NoReturn]) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        not_here("systemd-analyze is not installed; it runs where Debian's systemd is (apt-get install)")
    unit = (DOCKER / f"{name}.service").read_text()
    copy = tmp_path / f"{name}.service"
    copy.write_text(unit.replace(f"ExecStart=/opt/fedvault/bin/{name}", "ExecStart=/bin/true"))
    done = subprocess.run([tool, "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if str(copy) in line or copy.name in line]
    assert complaints == [], done.stderr
