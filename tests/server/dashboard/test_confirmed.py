"""Every action of the server's page needs its question, is done once, and says in words what the system refused."""

import errno
import html
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from server.dashboard.confirmed import Actions
from server.dashboard.site import server_pages
from shared.study.declaration import Study
from tests.support.server_page import ServerInPieces
from tests.support.web import OpenSite, open_site

STUDY = """[study]
name = "seen"
[model]
source = "{source}"
[task]
kind = "sequence-classification"
labels = ["n", "y"]
max_length = 24
[training]
local_steps = 3
[federation]
smallest_declared_size = 4000
"""
ACTIONS = ("invite", "revoke", "run", "stop", "resume", "export")


class Operator:
    """A program that answers the page's questions."""

    def __init__(self, http: httpx.Client, site: OpenSite) -> None:
        self.http, self._origin = http, {"origin": site.base}
        http.get(site.address)

    def asked(self, action: str, **about: str) -> dict[str, str]:
        """Return the fields of a question's form."""
        page = self.http.get(f"/confirm/{action}", params=about)
        assert page.status_code == 200, page.text
        form = page.text.split("<main")[1]
        return dict(re.findall(r'name="([^"]+)" value="([^"]*)"', form))

    def answer(self, action: str, form: dict[str, str]) -> httpx.Response:
        return self.http.post(f"/do/{action}", data=form, headers=self._origin)


@pytest.fixture
def server(tmp_path: Path, make_study: Callable[..., Study]) -> Iterator[ServerInPieces]:
    pieces = ServerInPieces(tmp_path / "federation")
    pieces.begin(make_study())
    yield pieces
    pieces.store.close()


@pytest.fixture
def operator(server: ServerInPieces) -> Iterator[Operator]:
    with (
        open_site(server.site().routes(), server_pages("fl.example.org")) as site,
        closing(httpx.Client(base_url=site.base)) as http,
    ):
        yield Operator(http, site)


def test_no_action_is_done_without_its_question(server: ServerInPieces, operator: Operator) -> None:
    stop = operator.asked("stop", run=server.run)
    before = server.store.operator_events(most=9)
    for action in ACTIONS:
        form = {"token": stop["token"], "run": server.run, "name": "new", "node": "st-mary", "file": "study.toml"}
        assert operator.answer(action, form).status_code == 403
        assert operator.answer(action, form | {"confirmation": stop["confirmation"]}).status_code == 403
        stop = operator.asked("stop", run=server.run)
    assert server.store.operator_events(most=9) == before and server.store.run(server.run).wanted


def test_a_run_is_queued_once_whoever_loads_what_again(
    server: ServerInPieces, operator: Operator, make_study: Callable[..., Study], tmp_path: Path
) -> None:
    file = tmp_path / "study.toml"
    file.write_text(STUDY.format(source=make_study().model.source))
    form = operator.asked("run", file=str(file))
    done = operator.answer("run", form)
    assert done.status_code == 303
    for _ in range(2):
        assert "is queued" in operator.http.get(done.headers["location"]).text
        again = operator.answer("run", form)
        assert again.status_code == 403 and "Nothing was done" in again.text
    assert len(server.store.runs()) == 2, "the one that there was, and this one"
    assert operator.http.get("/done/long-ago").headers["location"] == "/log"


def test_what_was_confirmed_cannot_be_changed_on_the_way(server: ServerInPieces, operator: Operator) -> None:
    form = operator.asked("invite", name="new-clinic", days="3")
    assert operator.answer("invite", form | {"name": "another"}).status_code == 403
    form = operator.asked("invite", name="new-clinic", days="3")
    assert operator.answer("invite", form | {"renew": "on"}).status_code == 403
    assert not {"another", "new-clinic"} & {node.name for node in server.store.nodes()}


@pytest.mark.parametrize("action", ACTIONS)
def test_what_the_system_refuses_is_a_sentence(
    operator: Operator, server: ServerInPieces, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", "/exports")

    form = operator.asked("stop", run=server.run)
    monkeypatch.setattr(Actions, "do", refused)
    monkeypatch.setattr("shared.web.confirmations.Confirmations.take", lambda *_: True)
    answer = operator.answer(action, form)
    assert answer.status_code == 500 and "got: No space left on device (/exports)." in answer.text


def test_an_export_that_fails_says_why_and_leaves_no_folder(
    server: ServerInPieces, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = server.home.runs / server.run / "adapter"
    adapter.mkdir(parents=True)
    for name in ("README.md", "adapter_model.safetensors"):
        (adapter / name).write_text("x")
    server.store.set_state(server.run, "finished")
    (tmp_path / "a-file").touch()
    form = operator.asked("export", run=server.run, folder=str(tmp_path / "a-file" / "out"))
    answer = operator.answer("export", form)
    assert answer.status_code == 500 and "Not a directory" in answer.text

    def copies_half(source: Path, target: Path) -> NoReturn:
        target.mkdir()
        (target / "README.md").touch()
        raise shutil.Error([(str(source), str(target), "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", copies_half)
    form = operator.asked("export", run=server.run, folder=str(tmp_path / "out"))
    answer = operator.answer("export", form)
    assert answer.status_code == 500 and "No space left on device" in html.unescape(answer.text)
    assert not (tmp_path / "out").exists()


def test_invites_of_names_that_look_alike_are_two_files(server: ServerInPieces, operator: Operator) -> None:
    names = ("a b", "a-b", "a/b", "../a b", "\u00e4 b", ".a-b")
    for name in names:
        assert operator.answer("invite", operator.asked("invite", name=name)).status_code == 303
    written = list((server.home.folder / "invites").iterdir())
    assert len(written) == len(names) and all(path.is_file() for path in written)
