"""Every row of a node's troubleshooting page: the situation is brought about, and the sentence read."""

import fcntl
import html
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from starlette.responses import Response
from starlette.routing import Route

from client.link.fleet import NotAccepted, call_flower
from client.link.loop import _trouble
from client.link.membership import _made_key, _request
from client.operator.server_checks import _clock
from client.operator_api.asking import OperatorClient
from client.operator_service import trial
from client.operator_service.jobs import Jobs
from client.operator_service.questions import Questions
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.lock import ledger_lock
from client.vault.review import node_files
from client.vault.review.node_files import open_node
from client.vault.review.resuming import resume
from client.vault.training.round_trainer import device_for
from server.certificate_authority import create, issue_node
from server.gateway.enrolment import invite
from shared.errors import FedVaultError
from shared.processes import running
from shared.protocol.invite import Invite
from shared.protocol.messages import Peer, StudyOffer
from shared.study.declaration import load_study
from shared.web.process import expiry, listening
from shared.web.rendering import Pages, Site
from shared.web.sessions import KEY_LIFE_S, Sessions
from simulations.e2e.federation import free_port, wait_until
from tests.support.enrolling_gateway import enrolling
from tests.support.flower_answers import refusing
from tests.support.ledgers import register as enter
from tests.support.operators_page import show_study
from tests.support.other_user import closed_to_this_user
from tests.support.stuck_vault import TASK, stuck_vault
from tests.support.troubleshooting import Row, Situations, rows_of
from tests.support.web import open_site

ROWS = rows_of("client/TROUBLESHOOTING.md")
situation = Situations()
Command = Callable[..., tuple[int, str, str]]
HEADER = "text,label\n"
PINS = [f'{name} = "{"a" * 64}"' for name in ("east", "south")]


@dataclass
class Place:
    """A node's folder with two datasets that share a record, and what an operator may do to it."""

    node: Command
    write_study: Callable[..., str]
    folder: Path
    patch: pytest.MonkeyPatch

    @property
    def home(self) -> Path:
        return self.folder / "node"

    def types(self, *arguments: str) -> str:
        _code, out, err = self.node(*arguments)
        return out + err

    def loses(self, name: str) -> str:
        """Delete a file of the node's folder, which prints nothing."""
        (self.folder / name).unlink()
        return ""

    def edits(self, old: str, new: str) -> str:
        """Change node.toml in one place, which prints nothing."""
        file = self.folder / "node.toml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))
        return ""

    def after(self, old: str, new: str) -> str:
        """Change node.toml in one place, and type a command that reads it."""
        return self.edits(old, new) + self.types("ledger")

    def adds(self, line: str) -> str:
        """Add a line to the policy of the first dataset, which prints nothing."""
        return self.edits("delta = 1e-5", f"delta = 1e-5\n{line}")

    def ward(self, content: str | bytes) -> str:
        """Put something else where the records are, and register them."""
        (self.folder / "ward.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.types("register", "ward")

    def approves(self, *more: str, dataset: str = "ward", run: str = "r-1", **changes: object) -> str:
        study = self.write_study(**changes)
        return self.types("approve", study, "--dataset", dataset, "--run", run, "--yes", *more)

    def offered(self, run: str = "r-1", *peers: Peer, **changes: object) -> None:
        study = load_study(self.folder / self.write_study(**changes))
        offer = StudyOffer(run, study.canonical_json(), peers=peers)
        open_node(self.folder / "node.toml").offers.receive(offer)

    def invite(self, **changes: object) -> str:
        """Write an invite of an authority of this folder, and try to join with it."""
        authority = self.folder / "authority"
        if not authority.exists():
            create(authority, "test federation")
        values: dict[str, object] = {
            "name": "ward",
            "server": f"127.0.0.1:{free_port()}",
            "authority": (authority / "authority.crt").read_text(),
            "token": "t",
            "expires": datetime.now(UTC) + timedelta(days=1),
        }
        (self.folder / "st-mary.json").write_text(Invite.model_validate(values | changes).model_dump_json())
        return self.types("join", "st-mary.json")

    def member(self, *, days_ago: int = 1) -> Path:
        """Leave what `join` leaves, and return its folder."""
        link, issued = self.home / "link", datetime.now(UTC) - timedelta(days=days_ago)
        self.invite()
        request = _request(_made_key(link / "node.key"), "ward").encode()
        (link / "authority.crt").write_bytes((self.folder / "authority" / "authority.crt").read_bytes())
        (link / "node.crt").write_bytes(issue_node(self.folder / "authority", "ward", request, now=issued))
        facts = {"name": "ward", "server": f"127.0.0.1:{free_port()}", "node_id": "1"}
        (link / "membership.json").write_text(json.dumps(facts))
        return link

    @contextmanager
    def supervised(self, **process: object) -> Iterator[Path]:
        """Look as if a supervisor ran that has started vault and link long ago."""
        running = self.home / "run"
        running.mkdir(parents=True, exist_ok=True)
        usual = {"pid": 7, "failures": 0, "last_exit": None, "since": "2020-01-01T00:00:00+00:00"}
        state = {"pid": os.getpid(), "processes": {"vault": usual | process, "link": usual}}
        (running / "state.json").write_text(json.dumps(state))
        with (running / "supervisor.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield running

    def sql(self, statement: str) -> None:
        """Change the ledger behind its back."""
        with closing(sqlite3.connect(self.home / "ledger.db")) as database:
            database.executescript(statement)


@pytest.fixture
def place(node: Command, study: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    study()
    monkeypatch.setattr(node_files, "LEDGER_PATIENCE_S", 0.1)
    return Place(node, study, tmp_path, monkeypatch)


@pytest.mark.parametrize("row", ROWS, ids=[row.symptom for row in ROWS])
def test_the_sentence_of_a_row_is_printed(row: Row, place: Place) -> None:
    printed = situation.by_symptom[row.symptom](place)
    assert row.is_in(printed), printed
    assert "Traceback" not in printed and row.remedy


def test_every_situation_is_a_row() -> None:
    assert situation.by_symptom.keys() == {row.symptom for row in ROWS}


def printed(action: Callable[[], object]) -> str:
    """What a command would print of the error that an action raises."""
    with pytest.raises(FedVaultError) as raised:
        action()
    return f"{raised.value}\n{raised.value.hint}"


def simple(symptom: str, action: Callable[[Place], str]) -> None:
    situation(symptom)(action)


# settings
simple("Any command, in the wrong folder", lambda p: p.loses("node.toml") + p.types("ledger"))
simple("Any command, after an edit", lambda p: p.after("epsilon = 3.0", "epsilon = three"))
simple("A key with a slip in it", lambda p: p.after("epsilon =", "epsilom ="))
simple("A key that is not there", lambda p: p.after("delta = 1e-5\n", ""))
simple("A number beyond its bounds", lambda p: p.after("epsilon = 3.0", "epsilon = 300"))
simple("A size that is too exact", lambda p: p.after("declared_size = 60", "declared_size = 8543"))
simple("A large δ", lambda p: p.after("delta = 1e-5", "delta = 0.05"))
simple("Protecting persons without saying who they are", lambda p: p.after("delta =", 'unit = "patient"\ndelta ='))
simple(
    "`split_by` beside `unit`",
    lambda p: p.after("delta =", 'unit = "patient"\nunit_column = "id"\nsplit_by = "text"\ndelta ='),
)
simple("Hours in another form", lambda p: p.after("delta =", 'hours = "10 pm to 6 am"\ndelta ='))


def names_model(place: Place, name: str, fingerprint: str) -> str:
    file = place.folder / "node.toml"
    known = open_node(file).settings.datasets["ward"].models[0]
    pinned = fingerprint or known
    file.write_text(f'[models]\ntiny = "{pinned}"\n{file.read_text().replace(known, name, 1)}')
    return place.types("ledger")


simple("A base model by a name that is not pinned", lambda p: names_model(p, "bert", ""))
simple("A base model's name with a slip in it", lambda p: names_model(p, "tinny", ""))
simple("A fingerprint that was cut", lambda p: names_model(p, "tiny", "c7ecc1"))
simple(
    "Both copies of the ledger in one place",
    lambda p: p.after("[datasets.ward]", '[node]\nledger_copy = "node/copy"\n[datasets.ward]'),
)


@situation("A container with a wrong variable")
def _(place: Place) -> str:
    place.patch.setenv("FEDVAULT_DEPLOYMENT", "Vault")
    return place.types("status")


@situation("A container of an earlier version")
def _(place: Place) -> str:
    place.patch.setenv("FEDVAULT_SIDE", "vault")
    return place.types("status")


# joining, and reaching the server
simple("The invite is not found", lambda p: p.types("join", "st-mary.json"))
simple("The invite's certificate is damaged", lambda p: p.invite(authority="-----BEGIN"))
simple("The invite lay too long", lambda p: p.invite(expires=datetime.now(UTC) - timedelta(days=1)))
simple("The server is not reached", lambda p: p.invite())
simple("Starting before joining", lambda p: p.types("start"))
simple("Joining a second time", lambda p: p.member() and p.invite())
simple("An invite for another node", lambda p: p.member() and p.invite(name="north", renews=True))
simple("Invited back without the key", lambda p: p.invite(renews=True))


@situation("The invite is another file, or was cut by a mail program")
def _(place: Place) -> str:
    (place.folder / "st-mary.json").write_text('{"fedvault_invite": 1, "name": "st-mary", "ser')
    return place.types("join", "st-mary.json")


@situation("The invite was used before")
def _(place: Place) -> str:
    with enrolling(place.folder / "federation") as (home, store):
        paper = invite(store, home, "ward").model_dump()
        assert "Joined" in place.invite(**paper)
        shutil.rmtree(place.home / "link")
        return place.invite(**paper)


@situation("A proxy opens TLS, or the invite is of another federation")
def _(place: Place) -> str:
    with enrolling(place.folder / "federation") as (home, _store):
        return place.invite(server=f"127.0.0.1:{home.settings().port}")


@situation("The server refuses this node")
def _(place: Place) -> str:
    with enrolling(place.folder / "federation") as (home, store):
        place.invite(**invite(store, home, "ward").model_dump())
        return place.types("doctor")


simple("The certificate has ended", lambda p: p.member(days_ago=500) and p.types("status"))
simple("The certificate ends soon", lambda p: p.member(days_ago=350) and p.types("status"))
simple("The node was off for more than a year", lambda p: p.member(days_ago=500) and p.types("doctor"))
simple("The server is away, or a firewall is new", lambda p: p.member() and p.types("doctor"))


@situation("The clock is wrong")
def _(_place: Place) -> str:
    return _clock(httpx.Response(200, headers={"date": "Tue, 01 Jan 2030 00:00:00 GMT"})).in_words


@situation("The clock is wrong while the node runs")
def _(_place: Place) -> str:
    with pytest.raises(NotAccepted) as raised:
        call_flower(refusing(timedelta(seconds=-9)), None)
    return _trouble(raised.value)


@situation("The connection is cut")
def _(place: Place) -> str:
    since = datetime.now(UTC).isoformat()
    link = {"connected": False, "server": "fl.example.org:8443", "since": since, "trouble": "ConnectError"}
    place.member().joinpath("state.json").write_text(json.dumps(link))
    with place.supervised():
        return place.types("status")


@situation("The node's private key is gone or not this user's")
def _(place: Place) -> str:
    place.approves()
    (place.member() / "node.key").unlink()
    return place.types("receipt", "r-1")


# data
simple("The file is not there", lambda p: p.loses("ward.csv") + p.types("register", "ward"))
simple("An empty file", lambda p: p.ward(""))
simple("A file with a header alone", lambda p: p.ward(HEADER))
simple("A file from an old program", lambda p: p.ward(HEADER.encode() + "für,yes\n".encode("latin-1")))
simple("A file saved as Unicode text", lambda p: p.ward(f"{HEADER}good,yes\n".encode("utf-16")))
simple("A row with a comma too many", lambda p: p.ward(f"{HEADER}good,yes\ngood, or so,yes\n"))
simple("The column of texts has another name", lambda p: p.ward("report,label\ngood,yes\n"))
simple("The column of labels has another name", lambda p: p.ward("text,score\ngood,yes\n") + p.approves())
simple("Two columns of one name", lambda p: p.ward("text,text,label\na,b,yes\n"))


@situation("A spreadsheet")
def _(place: Place) -> str:
    (place.folder / "ward.xlsx").write_bytes(b"PK\x03\x04")
    place.edits("ward.csv", "ward.xlsx")
    return place.types("register", "ward")


def doctor_of(place: Place, cells: list[str], *, line: str = "delta = 1e-5") -> str:
    place.ward(HEADER + "".join(f"{cell}\n" for cell in cells))
    place.edits("delta = 1e-5", line)
    return place.types("doctor")


SIXTY = [f"good word{number},yes" for number in range(60)]
simple("No row has a label", lambda p: doctor_of(p, [f"word{number}," for number in range(60)]))
simple("The size was guessed", lambda p: doctor_of(p, [f"word{n} of all,yes" for n in range(400)]))
simple("The same rows many times", lambda p: doctor_of(p, [*SIXTY, *SIXTY[:20]]))
simple("A small dataset", lambda p: doctor_of(p, SIXTY))


@situation("Studies call the labels something else")
def _(place: Place) -> str:
    cells = [f"word{number},{number % 2}" for number in range(60)]
    return doctor_of(place, cells, line='delta = 1e-5\nlabels = { "2" = "yes" }')


# base models
@situation("The model was never copied here")
def _(place: Place) -> str:
    shutil.rmtree(place.folder / "models")
    return place.approves()


@situation("A folder with pickled weights")
def _(place: Place) -> str:
    model = place.folder / "models" / "tiny"
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    file = place.folder / place.write_study()
    text = [line for line in file.read_text().splitlines() if "fingerprint" not in line and "source" not in line]
    file.write_text("\n".join(text).replace("[model]", f'[model]\nsource = "{model}"'))
    return place.types("show", file.name, "--dataset", "ward")


@situation("No GPU where one is asked for")
def _(place: Place) -> str:
    place.patch.setattr(torch.cuda, "is_available", lambda: False)
    return printed(lambda: device_for("cuda"))


# studies
simple("A dataset with a slip in its name", lambda p: p.types("show", p.write_study(), "--dataset", "wart"))
simple("Several datasets, and none was named", lambda p: p.types("show", p.write_study()))
simple("A run that is not on offer", lambda p: p.types("approve", "r-2030", "--dataset", "ward", "--yes"))


@situation("A study on offer whose file is damaged")
def _(place: Place) -> str:
    place.offered("r-1")
    place.offered("r-2")
    next((place.home / "offers").glob("*.json")).write_text("{")
    printed = place.types("studies")
    assert len(json.loads(place.types("studies", "--json").partition("]")[0] + "]")) == 1, "the other is listed"
    return printed


@situation("A base model that this machine rounds otherwise")
def _(place: Place) -> str:
    place.offered("r-1", base=f'base_weights = "bfloat16"\nloaded_fingerprint = "{"a" * 64}"')
    return place.types("doctor", "r-1", "--dataset", "ward")


@situation("A secure sum among nodes that are not pinned")
def _(place: Place) -> str:
    place.offered("r-1", Peer("east", "a" * 64), Peer("south", "b" * 64), sizes='secure_sum = "masked"')
    return place.types("show", "r-1", "--dataset", "ward")


@situation("A node comes with another key than you pinned")
def _(place: Place) -> str:
    place.offered("r-1", Peer("east", "a" * 64), sizes='secure_sum = "masked"')
    place.edits("[datasets.ward]", f'[peers]\neast = "{"b" * 64}"\n[datasets.ward]')
    return place.types("peers", "--pin", "east")


simple("Pinning a node that the server did not name", lambda p: p.types("peers", "--pin", "east"))
simple(
    "A pin that is no fingerprint",
    lambda p: p.after("[datasets.ward]", '[peers]\neast = "aa:bb"\n[datasets.ward]'),
)
simple(
    "One key under two names",
    lambda p: p.after("[datasets.ward]", "\n".join(["[peers]", *PINS, "[datasets.ward]"])),
)
simple("Approving a file", lambda p: p.types("approve", p.write_study(), "--dataset", "ward", "--yes"))
simple("A study for fewer sites than you allow", lambda p: p.approves(quorum=2))
simple("A study that does not say who asks", lambda p: p.adds('study_must_state = ["purpose"]') + p.approves())
simple(
    "A study that shares its noise",
    lambda p: p.approves(sizes='secure_sum = "shared"\ntypical_size = 60', whitening="false\nlocal_steps = 1"),
)
simple("A study of another task kind", lambda p: p.adds('tasks = ["causal-lm"]') + p.approves())
simple("A study that reads a column too many", lambda p: p.adds('readable_columns = ["label"]') + p.approves())
simple("A study for larger sites", lambda p: p.approves(sizes="smallest_declared_size = 1000"))
simple("Approving twice", lambda p: p.approves() + p.approves())
simple("Resuming a run that is well", lambda p: p.approves() + p.types("resume", "r-1", "--yes"))
simple("Personalising without an adapter", lambda p: p.approves() + p.types("personalise", "r-1"))
simple("A personal adapter that was never made", lambda p: p.approves() + p.types("personalise", "r-1", "--out", "x"))
simple(
    "Personalising after the records were withdrawn",
    lambda p: p.approves() + p.types("withdraw", "ward", "--yes") + p.types("personalise", "r-1", "--adapter", "x"),
)
simple(
    "A folder that holds no adapter of ours",
    lambda p: p.approves() + p.types("personalise", "r-1", "--adapter", str(p.folder)),
)
simple("A long note", lambda p: p.approves("--by", "x" * 81))


@situation("A study of another base model")
def _(place: Place) -> str:
    known = open_node(place.folder / "node.toml").settings.datasets["ward"].models[0]
    place.edits(known, "0" * 64)
    return place.approves()


@situation("Approving after a no")
def _(place: Place) -> str:
    place.offered()
    for command in ("approve", "reject"):
        place.types(command, "r-1", *(["--dataset", "ward", "--yes"] if command == "approve" else []))
    return place.types("approve", "r-1", "--dataset", "ward", "--yes")


# budget
simple("The budget is used up", lambda p: p.approves(epsilon=2.9) + p.approves(epsilon=1.0, run="r-2"))
simple(
    "Another dataset has used it",
    lambda p: p.approves(epsilon=2.9) + p.approves(dataset="renamed", epsilon=1.0, run="r-2"),
)
simple("A study that is too dear by itself", lambda p: p.approves(epsilon=4.0))
simple("A limit that protects nobody", lambda p: p.edits("epsilon = 3.0", "epsilon = 30.0") + p.types("doctor"))
simple(
    "Records that were withdrawn",
    lambda p: p.approves() + p.types("withdraw", "ward", "--yes") + p.approves(run="r-2"),
)


@situation("A study with a larger δ than yours")
def _(place: Place) -> str:
    file = place.folder / place.write_study()
    file.write_text(file.read_text().replace("[training]", "delta = 1e-3\n[training]"))
    return place.types("approve", file.name, "--dataset", "ward", "--run", "r-1", "--yes")


# ledger
@situation("Two commands at once")
def _(place: Place) -> str:
    place.approves()
    with ledger_lock(place.home / "ledger.db"):
        return place.types("ledger")


@situation("A row was changed")
def _(place: Place) -> str:
    place.approves()
    place.sql("DROP TRIGGER rows_stay; UPDATE rows SET body = replace(body, '3.0', '9.0');")
    return place.types("ledger")


@situation("An old backup was restored")
def _(place: Place) -> str:
    place.types("register", "ward")
    shutil.copytree(place.home, place.folder / "old")
    place.approves()
    shutil.rmtree(place.home)
    shutil.copytree(place.folder / "old", place.home)
    return place.types("ledger")


@situation("The second copy is gone")
def _(place: Place) -> str:
    place.approves()
    (place.folder / "node-ledger-copy" / "head.json").unlink()
    return place.types("ledger")


@situation("The ledger is gone")
def _(place: Place) -> str:
    place.approves()
    (place.home / "ledger.db").unlink()
    return place.types("ledger")


@situation("The file is damaged, or not this user's")
def _(place: Place) -> str:
    place.approves()
    for ending in ("-wal", "-shm"):
        (place.home / f"ledger.db{ending}").unlink(missing_ok=True)
    (place.home / "ledger.db").write_bytes(b"no database at all " * 100)
    return place.types("ledger")


@situation("A newer FedVault was here")
def _(place: Place) -> str:
    place.approves()
    place.sql("PRAGMA user_version = 99;")
    return place.types("ledger")


@situation("The clock was set back")
def _(place: Place) -> str:
    places, ahead = open_node(place.folder / "node.toml").folders, datetime.now(UTC) + timedelta(days=30)
    with Ledger(places.ledger, second_copy=places.second_copy, now=lambda: ahead) as ledger:
        enter(ledger, "other", epsilon=1.0)
    return place.approves()


@situation("The record index is gone")
def _(place: Place) -> str:
    place.approves()
    (place.home / "records.db").unlink()
    return place.approves(run="r-2", epsilon=0.5)


@situation("The key of the record index is gone")
def _(place: Place) -> str:
    place.approves()
    (place.home / "record.key").unlink()
    return place.approves(run="r-2", epsilon=0.5)


simple("Accepting what is not damaged", lambda p: p.approves() + p.types("ledger", "--accept", "--yes"))


# running
simple("Nothing happens", lambda p: p.types("status"))


@situation("Starting twice")
def _(place: Place) -> str:
    place.member()
    with place.supervised():
        return place.types("start")


@situation("Another user's node")
def _(place: Place) -> str:
    place.types("init")
    place.types("status")
    with closed_to_this_user(place.home):
        return place.types("status")


simple("Looking at logs before the first start", lambda p: p.types("logs"))


@situation("It ends at once")
def _(place: Place) -> str:
    return printed(lambda: running.detach(["false"], place.folder / "supervisor.log", place.home / "run"))


@situation("A process dies again and again")
def _(place: Place) -> str:
    with place.supervised(pid=None, failures=3, last_exit=9):
        return place.types("status")


@situation("The vault is stuck")
def _(place: Place) -> str:
    logged = list[str]()
    place.patch.setattr("client.link.vault_client.log.error", lambda words, *about: logged.append(words % about))
    with stuck_vault(place.folder, silent_for_s=0.3) as (_stuck, vault):
        vault.train(TASK)
    return "\n".join(logged)


@situation("The vault is away")
def _(place: Place) -> str:
    with place.supervised():
        return place.types("status")


@situation("Two containers that do not see each other")
def _(place: Place) -> str:
    place.patch.setenv("FEDVAULT_DEPLOYMENT", "link")
    place.patch.setattr("client.operator.server_checks.VAULT_STARTS_WITHIN_S", 0.0)
    return place.types("doctor")


@situation("The disk is nearly full")
def _(place: Place) -> str:
    usage = shutil.disk_usage(place.folder)._replace(free=2**30)
    place.patch.setattr(shutil, "disk_usage", lambda _folder: usage)
    return place.types("doctor")


@situation("The page, and no vault")
def page_without_a_vault(place: Place) -> str:
    client = OperatorClient(place.home / "operator" / "sock", timeout_s=2)
    with closing(client) as vault, pytest.raises(FedVaultError) as refused:
        vault.ask("overview")
    return str(refused.value)


@situation("The page's port is in use")
def taken_port(place: Place) -> str:
    with listening() as opened:
        return place.types("dashboard", "--port", str(opened.getsockname()[1]))


@situation("The page in the vault's container")
def page_in_a_container(place: Place) -> str:
    place.patch.setenv("FEDVAULT_DEPLOYMENT", "vault")
    return place.types("dashboard")


@situation("A yes on the page, to what is not any more what it was")
def moved_study(place: Place) -> str:
    study = load_study(place.folder / place.write_study())
    show_study(place.folder / "node.toml", study, "r-1")
    questions = Questions(place.folder / "node.toml", Jobs(), Jobs())
    questions.answer(
        "decide", {"run": "r-1", "dataset": "ward", "answer": "yes", "by": "A", "note": "", "via": "", "shown": "else"}
    )

    def ended() -> Any:
        job = questions.answer("review", {"run": "r-1", "dataset": "ward"})["job"]
        return job["answer"]

    return str(wait_until(ended, "it was tried")["error"])


@situation("The page's address, opened too late")
def late_address(place: Place) -> str:
    said, now = list[str](), [0.0]
    sessions = Sessions(expired=lambda: said.append(expiry(KEY_LIFE_S, terminal=True)), now=lambda: now[0])
    now[0] = KEY_LIFE_S + 1
    sessions.tidy()
    return said[0]


@situation("An answer that was given before, or a page of long ago")
def late_answer(place: Place) -> str:
    pages = Pages(None, Site("node", "ward"))
    routes = [Route("/", lambda request: Response(request.state.session.token))]
    with open_site(routes, pages) as site, httpx.Client(base_url=site.base, follow_redirects=True) as http:
        form = {"token": http.get(site.address).text, "confirmation": "used"}
        return html.unescape(http.post("/resume", data=form, headers={"origin": site.base}).text)


@situation("A run on the page in which another round failed meanwhile")
def failed_again(place: Place) -> str:
    place.approves()
    with open_node(place.folder / "node.toml").open_ledger() as ledger:
        for number in (1, 2):
            ledger.reserve("r-1", number)
            ledger.fail("r-1", number)
        with pytest.raises(FedVaultError) as refused:
            resume(ledger, "r-1", "1")
    return str(refused.value)


@situation("A trial on the page that the machine has no room for")
def trial_without_room(place: Place) -> str:
    place.patch.setattr(trial, "_command", lambda *_: ["sh", "-c", "kill -9 $$"])
    with pytest.raises(FedVaultError) as ended:
        trial.try_apart(place.folder / "node.toml", "r-1", "ward", lambda *_: None, lambda: False)
    return f"{ended.value} {ended.value.hint}"


@situation("A study waits")
def _(place: Place) -> str:
    place.offered()
    return place.types("status")


@situation("A round failed here")
def _(place: Place) -> str:
    place.approves()
    with open_node(place.folder / "node.toml").open_ledger() as ledger:
        ledger.reserve("r-1", 1)
        ledger.fail("r-1", 1)
    return place.types("status")


# receipts and backups
def receipt(place: Place) -> Path:
    place.approves()
    place.member()
    assert "error" not in place.types("receipt", "r-1", "--out", "receipt.json")
    return place.folder / "receipt.json"


simple("A receipt for a run that never was", lambda p: p.member() and p.types("receipt", "r-1"))
simple("Something else than a receipt", lambda p: p.types("verify", p.write_study()))


@situation("A receipt that was edited")
def _(place: Place) -> str:
    file = receipt(place)
    file.write_text(file.read_text().replace('"run": "r-1"', '"run": "r-2"'))
    return place.types("verify", "receipt.json")


@situation("A receipt of another federation")
def _(place: Place) -> str:
    receipt(place)
    create(place.folder / "other", "another federation")
    return place.types("verify", "receipt.json", "--authority", "other/authority.crt")


@situation("A report that was edited")
def _(place: Place) -> str:
    receipt(place)
    assert "error" not in place.types("report", "r-1", "--out", "report.json")
    file = place.folder / "report.json"
    file.write_text(file.read_text().replace('"height":', '"height":1'))
    return place.types("verify", "report.json")


@situation("A report that nobody signed")
def _(place: Place) -> str:
    receipt(place)
    (place.folder / "unsigned.json").write_text(place.types("report", "r-1", "--unsigned"))
    return place.types("verify", "unsigned.json")


@situation("A report in a language without texts")
def _(place: Place) -> str:
    receipt(place)
    return place.types("report", "r-1", "--language", "fr")


@situation("A backup over a backup")
def _(place: Place) -> str:
    place.types("backup", "ward.tgz")
    return place.types("backup", "ward.tgz")
