"""Commands about studies and runs."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from server.cli import main
from server.cli.app import cli
from server.forecast.forecast import forecast_study
from server.run_store.store import Store
from server.settings import Home
from shared.adapted_model.model import layout_of
from shared.study.declaration import Study
from shared.study.sections import STATED


def test_the_server_plans_without_a_federation(
    tmp_path: Path,
    make_study: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = toml(make_study(), tmp_path / "study.toml")
    printed = command(monkeypatch, capsys, "plan", str(file), "--sizes", "300,5000", "--json")
    forecast = json.loads(printed)
    expected = forecast_study(make_study(), layout_of(make_study()), {"node 1": 300, "node 2": 5000})
    assert forecast["ratio"] == expected.ratio and forecast["prospect"] == "enough"
    assert forecast["nodes"][1]["name"] == "node 2" and len(forecast["epsilon_by_round"]) == 3
    assert "Noise leaves room" in command(monkeypatch, capsys, "plan", str(file), "--sizes", "300,5000")


def test_a_study_is_not_queued_that_throws_updates_away(
    tmp_path: Path,
    make_study: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = toml(make_study(), tmp_path / "study.toml", "learning_rate = 200.0\n")
    home = ["--home", str(tmp_path / "server")]
    command(monkeypatch, capsys, "init", "--host", "localhost", *home)
    command(monkeypatch, capsys, "run", str(file), *home, code=2)
    unknown = toml(make_study(), tmp_path / "unknown.toml", aggregation="median")
    command(monkeypatch, capsys, "run", str(unknown), *home, code=2)
    command(monkeypatch, capsys, "plan", str(unknown), "--sizes", "300", code=2)
    assert json.loads(command(monkeypatch, capsys, "runs", "--json", *home)) == []
    assert json.loads(command(monkeypatch, capsys, "run", str(file), "--force", "--json", *home))["rounds"] == 3


def test_run_warns_of_a_study_that_does_not_say_who_asks_and_why(
    tmp_path: Path, make_study: Callable[..., Study]
) -> None:
    home, file = ["--home", str(tmp_path / "server")], toml(make_study(), tmp_path / "study.toml")
    CliRunner().invoke(cli, ["init", "--host", "localhost", *home])
    done = CliRunner().invoke(cli, ["run", str(file), "--json", *home])
    assert done.exit_code == 0
    assert "warning: the study does not state its purpose, requester, contact, legal basis, retention." in done.stderr
    texts = "".join(f'{name} = "told"\n' for name in STATED)
    file.write_text(file.read_text().replace("[model]", f"{texts}[model]", 1))
    done = CliRunner().invoke(cli, ["run", str(file), "--json", *home])
    assert done.exit_code == 0 and "warning" not in done.stderr


def test_a_base_model_is_beside_the_file_that_names_it_and_found_wherever_the_server_runs(
    tmp_path: Path,
    make_study: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, file = ["--home", str(tmp_path / "server")], toml(make_study(), tmp_path / "studies" / "study.toml")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bert").symlink_to(make_study().model.source)
    file.write_text(file.read_text().replace(make_study().model.source, "../models/bert"))
    command(monkeypatch, capsys, "init", "--host", "localhost", *home)
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, capsys, "plan", "studies/study.toml", "--sizes", "300,5000")
    command(monkeypatch, capsys, "run", "studies/study.toml", *home)
    monkeypatch.chdir(tmp_path / "server")
    with Store(Home(tmp_path / "server").database()) as store:
        (queued,) = store.runs()
    assert layout_of(queued.study) == layout_of(make_study())


def test_run_ends_with_what_it_waits_for(
    tmp_path: Path,
    make_study: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = ["--home", str(tmp_path / "server")]
    command(monkeypatch, capsys, "init", "--host", "localhost", *home)
    printed = command(monkeypatch, capsys, "run", str(toml(make_study(), tmp_path / "study.toml")), *home)
    *_, idle, waits, watch = printed.splitlines()
    assert idle.startswith("The server does not run") and "waits for approvals: 0 of 2 nodes." in waits
    assert watch.endswith("fedvault-server status --watch")


def test_run_says_how_many_nodes_a_secure_sum_is_of_and_refuses_numbers_that_go_with_none(
    tmp_path: Path,
    make_study: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, file = ["--home", str(tmp_path / "server")], toml(make_study(), tmp_path / "study.toml")
    plain = file.read_text()
    file.write_text(plain.replace("[federation]", '[federation]\nsecure_sum = "masked"\nquorum = 4'))
    command(monkeypatch, capsys, "init", "--host", "localhost", *home)
    printed = command(monkeypatch, capsys, "run", str(file), *home)
    assert "With 4 nodes: 4 of them open a sum, and it shows no update while at most 1 of them pools what" in printed
    assert "4 nodes or more, is in the run" in printed
    queued = json.loads(command(monkeypatch, capsys, "run", str(file), "--json", *home))
    numbers = {"mode": "masked", "fewest_nodes": 4, "nodes": 4, "threshold": 4, "colluders": 1}
    assert queued["secure_sum"] == numbers and queued["state"] == "queued"
    file.write_text(plain.replace("[federation]", '[federation]\nsecure_sum = "masked"\nquorum = 4\nthreshold = 2'))
    command(monkeypatch, capsys, "run", str(file), *home, code=2)
    assert len(json.loads(command(monkeypatch, capsys, "runs", "--json", *home))) == 2


@pytest.mark.parametrize("arguments", [["plan", "--sizes", "300,5000"], ["run"], ["run", "--force"]])
def test_a_study_that_its_base_model_cannot_carry_out_is_neither_planned_nor_queued(
    tmp_path: Path,
    make_study: Callable[..., Study],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    file = toml(make_study(), tmp_path / "study.toml")
    file.write_text(file.read_text().replace("max_length = 24", "max_length = 65"))
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, capsys, "init", "--host", "localhost", "--home", "server")
    home = ["--home", "server"] if "run" in arguments else []
    command(monkeypatch, capsys, arguments[0], str(file), *arguments[1:], *home, code=2)
    assert json.loads(command(monkeypatch, capsys, "runs", "--json", "--home", "server")) == []


def test_a_run_is_stopped_and_resumed_with_its_state_as_json(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    (tmp_path / "server.toml").write_text('hosts = ["127.0.0.1"]\n')
    with Store(Home(tmp_path).database()) as opened:
        run = opened.create_run(make_study()).id
    for command, state, wanted in (("stop", "stopped", False), ("resume", "queued", True)):
        done = CliRunner().invoke(cli, [command, run, "--json", "--home", str(tmp_path)])
        shown = json.loads(done.stdout)
        assert (shown["id"], shown["state"], shown["wanted"]) == (run, state, wanted)


def test_the_processes_logs_are_json_to_the_last_line(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text('hosts = ["127.0.0.1"]\n')
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "gateway.log").write_text('{"level": "info", "message": "up"}\nTraceback of a library\n17\n')
    done = CliRunner().invoke(cli, ["logs", "--json", "--home", str(tmp_path)])
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"level": "info", "message": "up"},
        {"process": "gateway", "message": "Traceback of a library"},
        {"process": "gateway", "message": "17"},
    ]


def toml(study: Study, path: Path, more: str = "", *, aggregation: str = "ffa") -> Path:
    """A study file of what differs from the defaults."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'[study]\nname = "test"\n[model]\nsource = "{study.model.source}"\n'
        '[task]\nkind = "sequence-classification"\nlabels = ["no", "yes"]\nmax_length = 24\n'
        f'[federation]\nrounds = 3\nsmallest_declared_size = 10\naggregation = "{aggregation}"\n'
        f"[training]\nlocal_steps = 3\n{more}"
    )
    return path


def command(monkeypatch: Any, capsys: Any, *arguments: str, code: int = 0) -> str:
    monkeypatch.setattr(sys, "argv", ["fedvault-server", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert int(ended.value.code or 0) == code
    return str(capsys.readouterr().out)


def test_a_round_that_is_paid_for_is_not_ended_without_a_word(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    (tmp_path / "server.toml").write_text('hosts = ["127.0.0.1"]\n')
    now, home = datetime.now(UTC), ["--home", str(tmp_path)]
    with Store(Home(tmp_path).database()) as store:
        run = store.create_run(make_study()).id
        for number, name in enumerate(("north", "west", "spare"), start=11):
            store.invite(name, name, now + timedelta(days=1))
            store.enrol(name, name, number, now)

        def types(*arguments: str, answer: str | None = None) -> Any:
            return CliRunner().invoke(cli, [*arguments, *home], input=answer)

        assert types("stop", run).exit_code == 0, "nothing is under way"
        assert types("resume", run).exit_code == 0
        store.record_event("asked", {"round": 1, "nodes": [11, 12], "again": [], "ask": 1}, run=run)
        store.create_run(make_study())
        for command in (["stop", run], ["revoke", "west"]):
            for answer, state in ((None, "running"), ("n\n", "running"), ("n\n", "waiting")):
                store.set_state(run, state)  # type: ignore[arg-type]
                said = types(*command, answer=answer)
                assert said.exit_code == 1 and "Round 1 of" in said.stderr and "north, west" in said.stderr
        assert store.run(run).wanted and [node.status for node in store.nodes()] == ["enrolled"] * 3
        assert types("revoke", "spare").exit_code == 0, "it was not asked"
        assert types("revoke", "north", answer="y\n").exit_code == 0
        assert types("revoke", "west", "--yes").exit_code == 0
        stopped = types("stop", run, "--yes", "--json")
        assert json.loads(stopped.stdout)["wanted"] is False and "only if the run is resumed" in stopped.stderr
