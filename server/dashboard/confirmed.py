"""Do on the page what commands do, by the same functions: first comes a question that says what follows."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from server.export.forms import asked_form
from server.gateway.enrolment import invite_file, write_invite
from server.operator import actions
from server.operator.actions import Operator
from server.operator.status_text import paid_round, waits_for
from server.run_store.store import Store
from server.settings import Home
from shared.errors import DataError, SettingsError
from shared.files import private_folder

Form = Mapping[str, str]
MOST_DAYS, MOST_TEXT = 90, 400
STUDIES, EXPORTS = "studies", "exports"
Value = TypeVar("Value")


class Confirmation(NamedTuple):
    """A question before an action: its effect, its cost, and the button that does it."""

    title: str
    sentences: Sequence[str]
    button: str
    back: str
    danger: bool = False
    carries: Form = {}  # noqa: RUF012 - a NamedTuple's default
    """What goes with the answer beside what came."""


class Done(NamedTuple):
    """The page after an action."""

    title: str
    sentences: Sequence[str]
    back: str


class Actions:
    """Asks, and does what was confirmed.

    Guarantee: the server's page changes nothing before its question was answered, and the event log has who did it.
    Guarantee: an operator at another machine names no file outside `studies` and `exports` of the server's folder.

    Args:
        home: the server's folder.
        store: its run store, open.
        elsewhere: whoever asks sits at another machine.
    """

    def __init__(self, home: Home, store: Store, *, elsewhere: bool = False) -> None:
        self._home, self._store, self._elsewhere = home, store, elsewhere
        self._asks: Mapping[str, Callable[[Form], Confirmation]] = {
            "invite": self._ask_invite,
            "revoke": self._ask_revoke,
            "run": self._ask_run,
            "stop": self._ask_stop,
            "resume": self._ask_resume,
            "export": self._ask_export,
        }
        self._does: Mapping[str, Callable[[Form, Operator], Done]] = {
            "invite": self._invite,
            "revoke": self._revoke,
            "run": self._run,
            "stop": lambda form, operator: self._want(form, operator, wanted=False),
            "resume": lambda form, operator: self._want(form, operator, wanted=True),
            "export": self._export,
        }

    def ask(self, action: str, form: Form) -> Confirmation:
        """Return the question before an action.

        Raises:
            FedVaultError: it cannot be done.
        """
        return _known(self._asks, action)(form)

    def do(self, action: str, form: Form, operator: Operator) -> Done:
        """Do what was confirmed; the event log then holds it.

        Raises:
            FedVaultError: it cannot be done.
        """
        return _known(self._does, action)(form, operator)

    def _ask_invite(self, form: Form) -> Confirmation:
        name, days, renews = _text(form, "name"), _days(form), form.get("renew") == "on"
        what = "keeps its key and its ledger, and gets a new certificate" if renews else "can enrol once"
        return Confirmation(
            f"Invite {name}?",
            [
                f"{name} {what} within {days} days. Whoever holds the invite can use it: hand it over privately.",
                f"It is written to {self._invite_path(name)}, readable by your user alone.",
            ],
            "Write the invite",
            "/nodes",
        )

    def _invite(self, form: Form, operator: Operator) -> Done:
        name, path = _text(form, "name"), self._invite_path(_text(form, "name"))
        created = actions.invite(
            self._home, self._store, name, operator, renew=form.get("renew") == "on", days=_days(form)
        )
        private_folder(path.parent)
        write_invite(created, path)
        where = f"{path}: for {name}, until {created.expires:%Y-%m-%d %H:%M} UTC."
        return Done(f"{name} is invited", [where, f"There: fedvault-node join {path.name}"], "/nodes")

    def _invite_path(self, name: str) -> Path:
        return self._home.folder.resolve() / "invites" / invite_file(name)

    def _ask_revoke(self, form: Form) -> Confirmation:
        name = _text(form, "node")
        lost = actions.lost_by_revoking(self._store, name)
        sentences = [f"{name} is refused from its next request on. It comes back under another name only.", *lost]
        return Confirmation(f"Shut {name} out?", sentences, f"Shut {name} out", "/nodes", danger=True)

    def _revoke(self, form: Form, operator: Operator) -> Done:
        name = _text(form, "node")
        actions.revoke(self._home, self._store, name, operator)
        return Done(f"{name} is shut out", ["What it sends from now on is refused."], "/nodes")

    def _ask_run(self, form: Form) -> Confirmation:
        file = self._place(_text(form, "file"), STUDIES)
        study = actions.pinned_study(file, lambda *_: None)
        asked, privacy, rounds = study.study, study.privacy, study.federation
        sentences = [
            asked.stated_purpose or "It states no purpose.",
            f"ε = {privacy.epsilon:g} at δ = {privacy.delta:g} for every {privacy.unit}.",
            f"{rounds.rounds} rounds of {study.training.local_steps} steps; {rounds.quorum} updates make a round.",
            "It is offered to every node. It starts as soon as enough of their operators have approved it.",
        ]
        if warning := actions.unstated(study):
            sentences.append(f"Warning: {warning}")
        if numbers := actions.sum_numbers(study, self._store):
            from server.secure_sum.history import announced

            sentences.append(announced(**numbers))
        carries = {"study_sha256": study.sha256}
        return Confirmation(f"Run {asked.name}?", sentences, "Queue it", "/runs", carries=carries)

    def _run(self, form: Form, operator: Operator) -> Done:
        study = actions.pinned_study(self._place(_text(form, "file"), STUDIES), lambda *_: None)
        if study.sha256 != form.get("study_sha256"):
            raise SettingsError(
                "Expected the study that you saw, got a file that has changed since.", hint="Look again."
            )
        queued = actions.queue(self._store, study, operator)
        return Done(f"{queued.id} is queued", [waits_for(queued, self._store)], f"/runs/{queued.id}")

    def _ask_stop(self, form: Form) -> Confirmation:
        run = self._store.run(_text(form, "run"))
        paid, _nodes = paid_round(run, self._store)
        lost = [f"{paid} Its updates stay there, and are used only if the run is resumed."] if paid else []
        sentences = ["Every finished round is kept.", *lost]
        return Confirmation(f"Stop {run.id}?", sentences, "Stop it", f"/runs/{run.id}", danger=True)

    def _ask_resume(self, form: Form) -> Confirmation:
        run = self._store.run(_text(form, "run"))
        return Confirmation(
            f"Continue {run.id}?", [f"It goes on after round {run.round}."], "Continue it", f"/runs/{run.id}"
        )

    def _want(self, form: Form, operator: Operator, *, wanted: bool) -> Done:
        run = actions.set_wanted(self._store, _text(form, "run"), operator, wanted=wanted)
        title = f"{run.id} {'continues' if wanted else 'stops'}"
        return Done(title, ["Every finished round is kept."], f"/runs/{run.id}")

    def _ask_export(self, form: Form) -> Confirmation:
        run, _adapter = actions.finished_adapter(self._home, self._store, _text(form, "run"))
        folder, merged = self._place(_text(form, "folder"), EXPORTS), form.get("merged") == "on"
        what = "the whole model, with the adapter in its weights" if merged else "the adapter, its head if it has one"
        return Confirmation(
            f"Export {run.id}?",
            [f"{folder.resolve()} will hold {what}, and its card, which says how to load it."],
            "Export it",
            f"/runs/{run.id}",
        )

    def _export(self, form: Form, operator: Operator) -> Done:
        run, folder = self._store.run(_text(form, "run")), self._place(_text(form, "folder"), EXPORTS)
        wanted = asked_form(merged=form.get("merged") == "on")
        actions.export(self._home, self._store, run.id, folder, operator, form=wanted)
        return Done(f"{run.id} is exported", [f"Its folder: {folder.resolve()}"], f"/runs/{run.id}")

    def _place(self, written: str, below: str) -> Path:
        """Return the path that a form names: any on this machine, or one below a folder in the server's.

        Raises:
            SettingsError: somebody elsewhere names another.
        """
        if not self._elsewhere:
            return Path(written)
        allowed = (self._home.folder / below).resolve()
        path = (allowed / written.removeprefix(f"{below}/")).resolve()
        if path == allowed or not path.is_relative_to(allowed):
            raise SettingsError(
                f"Expected a path below {below} in the server's folder, got {written[:40]!r}.",
                hint="Other places of this machine are for commands, and for its own page.",
            )
        return path


def _known(table: Mapping[str, Value], action: str) -> Value:
    if action not in table:
        raise DataError(f"Expected an action ({', '.join(table)}), got {action!r}.")
    return table[action]


def _text(form: Form, name: str) -> str:
    value = form.get(name, "").strip()
    if not value:
        raise SettingsError(f"Expected {name}, got nothing.", hint="Go back, and fill it in.")
    if len(value) > MOST_TEXT or not value.isprintable():
        raise SettingsError(f"Expected a printable line of at most {MOST_TEXT} characters, got {name}={value[:40]!r}.")
    return value


def _days(form: Form) -> int:
    written = form.get("days") or str(actions.INVITE_DAYS)
    if not written.isdecimal() or len(written) > 2 or not 1 <= int(written) <= MOST_DAYS:
        raise SettingsError(f"Expected 1 to {MOST_DAYS} days, got days={written[:40]!r}.")
    return int(written)
