"""Every row of a server's troubleshooting page: the situation is brought about, and the sentence read."""

import asyncio
import fcntl
import html
import io
import json
import logging
import os
import shutil
import socket
import sqlite3
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.serialization import Encoding
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node as FlowerNode
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette

from server.certificate_authority import create, issue_server, keep_node_certificate
from server.cli import main
from server.dashboard.remote_page import remote_site
from server.dashboard.watch import Watch
from server.flower.control import Control
from server.flower.patience import FlowerRefusedError
from server.gateway.door import ConnectionLimits, Door
from server.gateway.fleet_calls import CallRefused, FleetCalls
from server.gateway.handed_out import HandedOut
from server.gateway.operators.admission import OperatorAdmission
from server.gateway.operators.passage import OperatorLimits, Passage
from server.gateway.process import Presence, keep_serving_metrics, tls_config
from server.gateway.refusals import Refusals
from server.operator.actions import Operator
from server.operator.reasons import OF_DOUBT, OF_REASON, OF_STATUS
from server.operator.remote_operators import issue_certificate
from server.operator_authority import issue, operators_authority
from server.processes import SupervisedProcesses
from server.rounds.checkpoints import Checkpoints
from server.rounds.participants import why_it_waits
from server.run_process import _note_end
from server.run_store.operators import OperatorStore
from server.run_store.store import Store
from server.run_store.values import NO_NUMBER
from server.runs.ends import KILLED, TRIES
from server.settings import Home
from shared.errors import FedVaultError
from shared.study.declaration import load_study
from simulations.e2e.federation import free_port
from tests.support.fleet_in_memory import node_named
from tests.support.flower_control import Flower
from tests.support.other_user import closed_to_this_user
from tests.support.troubleshooting import Row, Situations, rows_of

ROWS = rows_of("server/TROUBLESHOOTING.md")
situation = Situations()


@dataclass
class Place:
    """A server's folder, a study for it, and what an operator may do to both."""

    folder: Path
    tiny_bert: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    @property
    def home(self) -> Home:
        return Home(self.folder / "federation")

    def types(self, *arguments: str) -> str:
        self.patch.setattr(sys, "argv", ["fedvault-server", *arguments])
        with pytest.raises(SystemExit):
            main()
        written = self.capture.readouterr()
        return written.out + written.err

    def loses(self, name: str) -> str:
        """Delete a file of the server's folder, which prints nothing."""
        (self.home.folder / name).unlink()
        return ""

    def writes(self, name: str, text: str) -> str:
        """Put something else into a file, which prints nothing."""
        (self.home.folder / name).write_text(text)
        return ""

    def settings(self, line: str) -> str:
        """Add a line to server.toml, and type a command that reads it."""
        return self.writes("server.toml", f"{line}\n{self.home.config.read_text()}") + self.types("runs")

    def study(self, *, source: str = "", more: str = "", max_length: int = 24) -> str:
        (self.folder / "study.toml").write_text(
            f'[study]\nname = "test"\n[model]\nsource = "{source or self.tiny_bert}"\n'
            f'[task]\nkind = "sequence-classification"\nlabels = ["no", "yes"]\nmax_length = {max_length}\n'
            f"[federation]\nrounds = 3\nsmallest_declared_size = 10\n[training]\nlocal_steps = 3\n{more}"
        )
        return "study.toml"

    def runs(self) -> str:
        """Queue a run as `run` does, without opening the base model, and return its name."""
        with Store(self.home.database()) as store:
            return store.create_run(load_study(self.folder / self.study())).id

    def enrols(self, *names: str) -> None:
        with Store(self.home.database()) as store:
            for number, name in enumerate(names, start=11):
                now = datetime.now(UTC)
                store.invite(name, name, now + timedelta(days=1))
                store.enrol(name, f"key of {name}", number, now)

    def finished(self) -> str:
        run = self.runs()
        with Store(self.home.database()) as store:
            store.set_state(run, "finished")
        return run

    def shows(self, **answers: Any) -> str:
        """Show a run whose first round had these answers."""
        usual = {"round": 1, "outcome": "aggregated", "asked": [11], "accepted": [], "refused": [], "rejected": []}
        run = self.runs()
        self.enrols("north")
        with Store(self.home.database()) as store:
            store.record_round(run, usual | {"missing": [], "seconds": {}} | answers, None)
        return self.types("show", run)

    @contextmanager
    def supervised(self, **process: object) -> Iterator[None]:
        """Look as if a supervisor ran that has started both processes long ago."""
        usual = {"pid": 7, "failures": 0, "last_exit": None, "since": "2020-01-01T00:00:00+00:00"}
        state = {"pid": os.getpid(), "processes": {"superlink": usual, "gateway": usual | process}}
        self.home.running.mkdir(exist_ok=True)
        (self.home.running / "state.json").write_text(json.dumps(state))
        with (self.home.running / "supervisor.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@pytest.fixture
def place(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Place:
    monkeypatch.chdir(tmp_path)
    made = Place(tmp_path, tiny_bert, monkeypatch, capsys)
    made.types("init", "--host", "127.0.0.1", "--port", str(free_port()))
    made.home.config.write_text(made.home.config.read_text() + f"superlink_port = {free_port()}\n")
    return made


@pytest.mark.parametrize("row", ROWS, ids=[row.symptom for row in ROWS])
def test_the_sentence_of_a_row_is_printed(row: Row, place: Place) -> None:
    printed = situation.by_symptom[row.symptom](place)
    assert row.is_in(printed), printed
    assert "Traceback" not in printed and row.remedy


def test_every_situation_is_a_row() -> None:
    assert situation.by_symptom.keys() == {row.symptom for row in ROWS}


def test_every_reason_has_a_row() -> None:
    codes = {row.sentence.rpartition("(")[2].rstrip(")") for row in ROWS if row.sentence.startswith("north: ")}
    assert codes == (OF_STATUS.keys() | OF_REASON.keys() | OF_DOUBT.keys()) - {"approved"}


def printed(action: Callable[[], object]) -> str:
    """What a command would print of the error that an action raises."""
    with pytest.raises(FedVaultError) as raised:
        action()
    return f"{raised.value}\n{raised.value.hint}"


def simple(symptom: str, action: Callable[[Place], str]) -> None:
    situation(symptom)(action)


# setting up
simple("Any command, in the wrong folder", lambda p: p.types("runs", "--home", "elsewhere"))
simple("Any command, after an edit", lambda p: p.settings("listen = 0.0.0.0"))
simple("A key with a slip in it", lambda p: p.settings("superlink_prot = 8001"))


@situation("Flower's database is started afresh after each run")
def _(place: Place) -> str:
    place.settings("flower_database_limit_bytes = 1048576")
    place.home.flower.mkdir()
    with Store(place.home.database()) as store, logged("server.processes") as lines:
        processes = SupervisedProcesses(place.home, store)
        for _ in range(4):
            (place.home.flower / "state.db").write_bytes(bytes(2**21))
            processes.wanted()
    return "\n".join(lines)


@situation("A folder of another user")
def _(place: Place) -> str:
    def not_ours(_path: Path, _mode: int) -> None:
        raise PermissionError

    shutil.rmtree(place.home.folder)
    place.home.folder.mkdir()
    place.home.folder.chmod(0o755)
    place.patch.setattr(Path, "chmod", not_ours)
    return place.types("init", "--host", "fl.example.org")


simple("A port that is none", lambda p: p.writes("server.toml", 'hosts = ["a"]\nport = 84430\n') + p.types("runs"))
simple("A federation is there already", lambda p: p.types("init", "--host", "fl.example.org"))
simple("Keys are there, and no `server.toml`", lambda p: p.loses("server.toml") + p.types("init", "--host", "a"))
simple("The authority's key is gone", lambda p: p.loses("keys/authority.key") + p.types("renew"))
simple("A key file is damaged, or not this user's", lambda p: p.writes("keys/authority.key", "?") + p.types("renew"))


@situation("The authority is nine years old")
def _(place: Place) -> str:
    shutil.rmtree(place.home.keys)
    create(place.home.keys, "test federation", now=datetime.now(UTC) - timedelta(days=9.5 * 365))
    return place.types("renew")


@situation("The authority ends within a year and two months")
def _(place: Place) -> str:
    shutil.rmtree(place.home.keys)
    create(place.home.keys, "test federation", now=datetime.now(UTC) - timedelta(days=3650 - 450))
    return place.types("renew") + place.types("status")


@situation("Rolling the authority over while the server runs")
def _(place: Place) -> str:
    with place.supervised():
        return place.types("renew", "--authority")


simple("Rolling over twice", lambda p: p.types("renew", "--authority") and p.types("renew", "--authority"))
simple("Ending a roll-over that did not begin", lambda p: p.types("renew", "--finish"))


@situation("Ending a roll-over too early")
def _(place: Place) -> str:
    place.enrols("north")
    place.types("renew", "--authority")
    place.patch.setattr(sys, "stdin", io.StringIO("n\n"))
    return place.types("renew", "--finish")


@situation("The server's certificate is gone")
def _(place: Place) -> str:
    place.loses("keys/server.crt")
    return printed(lambda: tls_config(None, place.home.keys, host="127.0.0.1", port=free_port()))


@situation("The server's certificate ends")
def _(place: Place) -> str:
    place.patch.setattr("server.certificate_ends.ANNOUNCED_BEFORE", timedelta(days=400))
    return place.types("status")


@situation("The database cannot be opened")
def _(place: Place) -> str:
    place.types("runs")
    for ending in ("-wal", "-shm"):
        (place.home.folder / f"fedvault.db{ending}").unlink(missing_ok=True)
    return place.writes("fedvault.db", "no database at all " * 100) + place.types("runs")


@situation("A newer FedVault was here")
def _(place: Place) -> str:
    place.types("runs")
    with closing(sqlite3.connect(place.home.folder / "fedvault.db")) as database:
        database.executescript("UPDATE meta SET value = '99' WHERE key = 'schema';")
    return place.types("runs")


# nodes
@situation("A name is used already")
def _(place: Place) -> str:
    place.enrols("north")
    return place.types("invite", "north")


@situation("Revoking a node with a slip in its name")
def _(place: Place) -> str:
    place.enrols("north")
    return place.types("revoke", "nort")


@situation("A node cannot join with its invite")
def _(place: Place) -> str:
    with Store(place.home.database()) as store:
        return printed(lambda: store.enrol("unknown", "key", NO_NUMBER, datetime.now(UTC)))


@situation("A node has joined and never becomes present")
def _(place: Place) -> str:
    place.enrols("north")
    flower: Any = Flower()
    flower.keys, flower.shut_out = {11: "key of north"}, {11}
    with logged("server.gateway.process") as lines, Store(place.home.database()) as store:
        Presence().look(store, flower)
    return "\n".join(lines)


@situation("A node's certificate is about to end")
def _(place: Place) -> str:
    place.enrols("north")
    almost = issue_server(place.home.keys, ["north"], now=datetime.now(UTC) - timedelta(days=350))
    keep_node_certificate(place.home.keys, "north", almost.certificate.read_bytes())
    return place.types("status")


simple("Inviting a node back that is not enrolled", lambda p: p.types("invite", "north", "--renew"))


def under_way(place: Place) -> str:
    """Let a run have a round that north was asked for, and a person who says no."""
    run = place.runs()
    place.enrols("north")
    with Store(place.home.database()) as store:
        store.set_state(run, "running")
        store.record_event("asked", {"round": 1, "nodes": [11], "again": [], "ask": 1}, run=run)
    place.patch.setattr(sys, "stdin", io.StringIO("n\n"))
    return run


@situation("Revoking a node that was asked")
def _(place: Place) -> str:
    under_way(place)
    return place.types("revoke", "north")


simple("Stopping while a round is under way", lambda p: p.types("stop", under_way(p)))


@situation("Revoking while Flower does not run")
def _(place: Place) -> str:
    place.enrols("north")
    with logged("server.gateway.enrolment") as lines:
        place.types("revoke", "north")
    return lines[0]


@contextmanager
def logged(name: str) -> Iterator[list[str]]:
    """What a logger writes meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    yield lines
    logging.getLogger(name).removeHandler(handler)


# studies
simple("The study's file is not found", lambda p: p.types("run", "absent.toml"))
simple("A key of the study with a slip in it", lambda p: p.types("run", p.study(more="[privacy]\nepsilom = 1.0\n")))
simple("A base model that is not here", lambda p: p.types("run", p.study(source="./absent")))
simple("A bundled model that there is not", lambda p: p.types("run", p.study(source="bundled:minlm")))
simple("Texts longer than the model reads", lambda p: p.types("run", p.study(max_length=65)))
simple("Noise that drowns every update", lambda p: p.types("run", p.study(more="learning_rate = 200.0\n")))
simple("Sizes in another form", lambda p: p.types("plan", p.study(), "--sizes", "3700;4200"))
simple("Every site is too small", lambda p: p.types("plan", p.study(), "--sizes", "5"))
simple("Nobody knows who asks", lambda p: p.types("run", p.study()))


@situation("A method of averaging that there is not")
def _(place: Place) -> str:
    file = place.folder / place.study()
    file.write_text(file.read_text().replace("rounds = 3", 'rounds = 3\naggregation = "median"'))
    return place.types("run", file.name)


# runs
simple("A run that there is not", lambda p: p.types("show", "r-2030"))
simple("A run does not start", lambda p: p.types("show", p.runs()))
simple("Exporting too early", lambda p: p.types("export", p.runs(), "adapter"))
simple("Resuming what is finished", lambda p: p.types("resume", p.finished()))
simple("Keeping curves without an address", lambda p: p.types("track", p.finished()))


@situation("MLflow is away")
def _(place: Place) -> str:
    place.patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return place.types("track", place.finished(), "--mlflow", f"http://127.0.0.1:{free_port()}")


@situation("Too few nodes for the quorum")
def _(place: Place) -> str:
    place.enrols("north")
    return place.types("show", place.runs())


@situation("A run waits behind another one")
def _(place: Place) -> str:
    place.runs()
    return place.types("run", "study.toml")


@situation("Exporting a second time")
def _(place: Place) -> str:
    (place.folder / "adapter").mkdir()
    return place.types("export", place.finished(), "adapter")


@situation("A node is silent, or much slower than the others")
def _(place: Place) -> str:
    run = place.runs()
    place.enrols("north")
    usual = {"outcome": "aggregated", "asked": [11, 12], "accepted": [12], "refused": [], "rejected": [], "seconds": {}}
    with Store(place.home.database()) as store:
        for number in (1, 2):
            store.record_round(run, usual | {"round": number, "missing": [11]}, None)
    return place.types("show", run)


def waiting(place: Place, reason: str) -> str:
    run = place.runs()
    with Store(place.home.database()) as store:
        store.set_state(run, "waiting", reason=reason)
    return place.types("status")


REFUSED = why_it_waits({"refused_budget": [11]}, away=0, quorum=2, enrolled=2)
simple("Too many nodes said no", lambda p: waiting(p, REFUSED))
AWAY = why_it_waits({"approved": [11]}, away=1, quorum=2, enrolled=2)
simple("Enough have approved, and are not there", lambda p: waiting(p, AWAY))


@situation("The same fault again and again")
def _(place: Place) -> str:
    run = place.runs()
    with Store(place.home.database()) as store:
        for _ in range(TRIES):
            _note_end(store, store.run(run), ValueError("a bug"))
    return place.types("show", run)


@situation("Prometheus finds nothing")
def _(place: Place) -> str:
    stop = threading.Event()
    stop.set()
    place.patch.setattr(uvicorn.Server, "run", lambda _server: sys.exit(1))
    with logged("server.gateway.process") as lines:
        # without a log_config of its own: uvicorn's would close the handlers of whoever runs the tests
        keep_serving_metrics(uvicorn.Config(lambda: None, host="127.0.0.1", port=9464, log_config=None), stop)
    return "\n".join(lines)


@situation("A run that Flower refuses")
def _(place: Place) -> str:
    run = place.runs()
    with Store(place.home.database()) as store:
        for number in range(TRIES):
            _note_end(
                store, store.run(run), FlowerRefusedError(f"Expected Flower to accept StartRun, got 400: {number}")
            )
    return place.types("show", run)


@situation("A run's process is killed again and again")
def _(place: Place) -> str:
    return waiting(place, KILLED)


@situation("What is stored of a study is damaged")
def _(place: Place) -> str:
    run = place.runs()
    with closing(sqlite3.connect(place.home.folder / "fedvault.db")) as database:
        database.execute("UPDATE runs SET study = 'x'")
        database.commit()
    with Store(place.home.database()) as store:
        return printed(lambda: store.run(run).study) + place.types("status")


@situation("What is stored of its rounds is damaged")
def _(place: Place) -> str:
    (place.folder / "round-00001.json").write_text("{")
    return printed(lambda: Checkpoints(place.folder).latest(study_sha256="", study_run=""))


@situation("A round is asked again")
def _(place: Place) -> str:
    run = place.runs()
    place.enrols("north")
    with Store(place.home.database()) as store:
        store.set_state(run, "running")
        store.record_event("asked", {"round": 1, "nodes": [11], "again": [11], "ask": 2}, run=run)
    return place.types("status")


for row in ROWS:
    if row.sentence.startswith("north: "):
        code = row.sentence.rpartition("(")[2].rstrip(")")
        what = {"rejected": [{"node": 11, "reason": code}]}
        what = what if code in OF_REASON else {"refused": [{"node": 11, "status": code}]}
        what = {"quiet": [11]} if code in OF_DOUBT else what
        simple(row.symptom, lambda p, what=what: p.shows(**what))  # type: ignore[misc]


# running
simple("Nothing happens", lambda p: p.types("status"))


@situation("Starting twice")
def _(place: Place) -> str:
    with place.supervised():
        return place.types("start")


@situation("The port is in use")
def _(place: Place) -> str:
    with socket.create_server(("127.0.0.1", place.home.settings().port)):
        return place.types("start")


@situation("The port was taken after the start")
def _(place: Place) -> str:
    def is_not_http(other: socket.socket) -> None:
        peer, _ = other.accept()
        peer.sendall(b"220 mail.example.org\r\n")
        peer.close()

    with socket.create_server(("127.0.0.1", place.home.settings().superlink_port)) as other, place.supervised():
        threading.Thread(target=is_not_http, args=(other,)).start()
        return place.types("status")


@situation("Another user's server")
def _(place: Place) -> str:
    place.types("status")
    with closed_to_this_user(place.home.folder):
        return place.types("status")


simple("Looking at logs before the first start", lambda p: p.types("logs"))


@situation("A process does not answer")
def _(place: Place) -> str:
    with place.supervised():
        return place.types("status")


@situation("A process dies again and again")
def _(place: Place) -> str:
    with place.supervised(pid=None, failures=3, last_exit=1):
        return place.types("status")


@situation("Flower does not answer")
def _(place: Place) -> str:
    return printed(Control(place.home).nodes)


@situation("Strangers try the port")
def _(_: Place) -> str:
    refusals = Refusals()
    for _again in range(3):
        refusals.count("203.0.113.9", "404 Not Found")
    return refusals.summed_up()


@situation("A node says what is not its own")
def _(_: Place) -> str:
    request = ConfirmMessageReceivedRequest(node=FlowerNode(node_id=7), run_id=1, message_object_id="0" * 64)
    calls, path = FleetCalls(HandedOut(), lambda: 0), "/v1/fleet/confirm-message-received"
    with pytest.raises(CallRefused) as refused:
        calls.read(node_named("river"), path, request.SerializeToString())
    with logged("server.gateway.refusals") as lines:
        Refusals().count("river", f"{refused.value.status} {refused.value}")
    return "\n".join(lines)


@situation("One address opens connections too quickly")
def _(_: Place) -> str:
    door = Door(ConnectionLimits(burst=1), lambda: 0.0)
    door.arrives("first", "203.0.113.9")
    out = door.arrives("second", "203.0.113.9")
    assert out is not None
    with logged("server.gateway.refusals") as lines:
        Refusals().count("203.0.113.9", out[1])
    return "\n".join(lines)


# operators at other machines
simple("The page is asked for before it is open", lambda p: p.types("operator", "anna"))
simple("An operator with a name that no log can show", lambda p: p.types("operator", "Anna B"))


@situation("Revoking an operator with a slip in the name")
def _(place: Place) -> str:
    place.types("operator", "anna")
    return place.types("revoke", "ana", "--operator")


@situation("The operators' authority is damaged")
def _(place: Place) -> str:
    place.types("operator", "anna")
    place.writes("keys/operators.pem", "torn")
    return place.types("operator", "ruth")


@situation("The operators' authority ends")
def _(place: Place) -> str:
    operators_authority(place.home.keys)
    late = datetime.now(UTC) + timedelta(days=3600)
    return printed(lambda: issue(place.home.keys, "anna", timedelta(days=90), now=late))


def passage(place: Place, **limits: int) -> httpx.Response:
    """Ask for the page with a certificate of anna's, while no process of it runs; without limits: with none."""
    shown = list[bytes]()
    with Store(place.home.database()) as store:
        if limits:
            issued = issue_certificate(place.home, store, "anna", Operator("root"))
            shown = [issued.certificate.public_bytes(Encoding.DER)]
        admission = OperatorAdmission(store.operators, operators_authority(place.home.keys))
        gateway = Starlette(routes=Passage("nowhere", admission, limits=OperatorLimits(**limits)).routes())

        async def asked() -> httpx.Response:
            async def with_certificate(scope: Any, receive: Any, send: Any) -> None:
                await gateway(scope | {"extensions": {"tls": {"client_cert_chain": shown}}}, receive, send)

            transport = httpx.ASGITransport(with_certificate)
            async with httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1") as client:
                return await client.get("/operator/live")

        return asyncio.run(asked())


simple(
    "An operator's certificate is about to end",
    lambda p: p.types("operator", "anna", "--days", "9") + p.types("status"),
)
simple("A browser shows no certificate, or one that ended or was revoked", lambda p: passage(p).text)
simple("The page's process does not run", lambda p: passage(p, streams=1).text)
simple("A page is open too often", lambda p: passage(p, streams=0).text)


def page_says(place: Place, method: str, path: str, *, host: str = "127.0.0.1", may_act: bool = False) -> str:
    """Ask the page itself, as the gateway passes a request of anna's on, and write with its session's own token."""
    with Store(place.home.database()) as store:
        issued = issue_certificate(place.home, store, "anna", Operator("root"), may_act=may_act)
        settings = place.home.settings()
        page, base = remote_site(settings, Watch(place.home, store)), f"https://127.0.0.1:{settings.port}"
        named = {"fedvault-operator": "anna", "fedvault-certificate": issued.serial, "fedvault-address": "203.0.113.9"}

        async def asked() -> str:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(page), base_url=base, headers=named) as client:
                entered = await client.get("/log", headers={} if host == "127.0.0.1" else {"host": host})
                if entered.status_code != 303:
                    return entered.text
                cookie = entered.headers["set-cookie"].partition(";")[0]
                token = (await client.get("/log", headers={"cookie": cookie})).text.partition('name="token" value="')[2]
                headers = {"cookie": cookie, "origin": base}
                form = {"token": token.partition('"')[0]} if method == "POST" else None
                answer = await client.request(method, path, headers=headers, data=form)
                return html.unescape(answer.text)

        return asyncio.run(asked())


simple("A button that an operator may not press", lambda p: page_says(p, "POST", "/do/stop"))
simple("Asking for what an operator may not do", lambda p: page_says(p, "GET", "/confirm/stop?run=r-1"))
simple(
    "An operator elsewhere names a file of the machine",
    lambda p: page_says(p, "GET", "/confirm/run?file=/srv/study.toml", may_act=True),
)
simple("The page under a name that is not in `hosts`", lambda p: page_says(p, "GET", "/", host="other.example"))


@situation("The run store is away while an operator looks")
def _(place: Place) -> str:
    with Store(place.home.database()) as store:
        issued = issue_certificate(place.home, store, "anna", Operator("root"))

    class Away:
        def valid(self, _serial: str, _now: datetime) -> None:
            raise OperationalError("SELECT 1", {}, Exception("the server closed the connection"))

    shown = issued.certificate.public_bytes(Encoding.DER)
    with logged("server.gateway.operators.admission") as lines:
        admission = OperatorAdmission(cast(OperatorStore, Away()), operators_authority(place.home.keys))
        assert admission.operator({"extensions": {"tls": {"client_cert_chain": [shown]}}}) is None
    return "\n".join(lines)


# backups
BACKUP, NEW = ("backup", "fed.tgz"), ("--home", "new")
simple("A backup over a backup", lambda p: p.types(*BACKUP) and p.types(*BACKUP))
simple("A backup into the server's own folder", lambda p: p.types("backup", "federation/fed.tgz"))
simple("The backup is not found", lambda p: p.types("restore", "absent.tgz", *NEW))
simple("Restoring over a server", lambda p: p.types(*BACKUP) and p.types("restore", "fed.tgz"))


def restored(place: Place) -> str:
    return place.types("restore", "fed.tgz", *NEW)


@situation("A backup that was cut, or another file")
def _(place: Place) -> str:
    place.types(*BACKUP)
    whole = (place.folder / "fed.tgz").read_bytes()
    (place.folder / "fed.tgz").write_bytes(whole[: len(whole) // 2])
    return restored(place)


@situation("A backup that was changed")
def _(place: Place) -> str:
    place.types(*BACKUP)
    with tarfile.open(place.folder / "fed.tgz") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    with tarfile.open(place.folder / "fed.tgz", "w:gz") as tar:
        for name, content in (members | {"home/server.toml": b'hosts = ["elsewhere.example.org"]'}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return restored(place)


@situation("A backup of a newer FedVault")
def _(place: Place) -> str:
    with place.patch.context() as newer:
        newer.setattr("server.backup.VERSION", 2)
        place.types(*BACKUP)
    return restored(place)


@situation("The database in the backup's settings is used")
def _(place: Place) -> str:
    place.settings(f'database = "sqlite:///{place.folder}/store.db"')
    place.types(*BACKUP)
    place.enrols("north")
    return restored(place)


@situation("The disk is full, or not this user's")
def _(place: Place) -> str:
    place.patch.setattr("server.backup._add", lambda *_: Path("absent").stat())
    return place.types(*BACKUP)
