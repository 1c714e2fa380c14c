"""Do what an operator asks for: invite, revoke, run, stop, resume, export.

Commands and the page call the same functions. Each is written to the event log with who asked for it, and from where.
"""

import getpass
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from server.export.forms import Form, write_form
from server.run_store.store import Store
from server.run_store.values import Run
from server.settings import Home
from shared.errors import SettingsError
from shared.files import new_folder

if TYPE_CHECKING:
    from shared.protocol.invite import Invite
    from shared.study.declaration import Study
    from shared.study.sections import Model

INVITE_DAYS = 7
COMMAND_LINE = "command line"


class Operator(NamedTuple):
    """Who asks for something, and from where."""

    who: str
    where: str = COMMAND_LINE


def this_user() -> str:
    """Return the name of the user whose process this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "a user without a name"


def invite(
    home: Home, store: Store, name: str, operator: Operator, *, renew: bool = False, days: int = INVITE_DAYS
) -> "Invite":
    """Let a node of this name enrol, or, if it is enrolled and its certificate ended, come back.

    Raises:
        SettingsError: the name is taken, or not enrolled, or there is no authority.
    """
    from server.gateway import enrolment

    create = enrolment.invite_back if renew else enrolment.invite
    created = create(store, home, name, lifetime=timedelta(days=days))
    note(store, operator, "invite", node=name, days=days, renews=renew)
    return created


def lost_by_revoking(store: Store, name: str) -> list[str]:
    """Return a sentence on each round that a node is paying for now: it would not be used."""
    from server.operator.status_text import paid_round

    names = store.names()
    rounds = [paid_round(run, store) for run in store.runs()]
    return [
        f"{sentence} What {name} makes of it would not be used."
        for sentence, nodes in rounds
        if name in {names.get(node) for node in nodes}
    ]


def revoke(home: Home, store: Store, name: str, operator: Operator) -> None:
    """Shut a node out, from its next request on.

    Raises:
        SettingsError: no such node.
    """
    from server.flower.control import Control
    from server.gateway import enrolment

    control = Control(home)
    try:
        enrolment.revoke(store, control, name)
    finally:
        control.close()
    note(store, operator, "revoke", node=name)


def pinned_study(file: Path, say: Callable[[str, int, int], None], *, force: bool = False) -> "Study":
    """Read a study that is to be queued, and pin it: nodes resolve the base model by its fingerprint alone.

    Args:
        file: the study as TOML.
        say: receives what is being done, and how many of how many steps are done.
        force: also if updates of small sites are sure to be rejected.

    Raises:
        SettingsError: it cannot be carried out, or throws updates away and `force` is not set.
    """
    from server.aggregation.method import method_for
    from server.forecast.rejected_rounds import refuse_sure_rejections
    from shared.adapted_model.model import layout_of
    from shared.study.declaration import load_study

    declared = load_study(file)
    method_for(declared)
    say("Hashing the base model", 0, 2)
    declared = declared.model_copy(update={"model": _pinned_model(declared)})
    say("Checking whether the base model can carry the study out", 1, 2)
    layout = layout_of(declared)
    if not force:
        refuse_sure_rejections(declared, layout)
    return declared


def queue(store: Store, study: "Study", operator: Operator) -> Run:
    """Queue a run of a pinned study."""
    queued = store.create_run(study)
    note(store, operator, "run", run=queued.id, study=queued.study_name, study_sha256=queued.study_sha256)
    return queued


def unstated(study: "Study") -> str:
    """Return a sentence on what a study does not state, and people who decide will ask; empty if it states all."""
    if not study.study.unstated:
        return ""
    from shared.study.sections import in_words

    return (
        f"the study does not state its {in_words(study.study.unstated)}. People who decide about it will ask, and "
        "nodes may refuse it. Add these under [study]; it is then another study."
    )


def sum_numbers(study: "Study", store: Store) -> dict[str, Any]:
    """Return the public numbers of a study's secure sum as of now; nothing for a study without one."""
    if study.federation.secure_sum is None:
        return {}
    from server.secure_sum.numbers import expected_numbers

    return expected_numbers(study, len(store.enrolled_names()))


def set_wanted(store: Store, name: str, operator: Operator, *, wanted: bool) -> Run:
    """Stop a run, or let it continue from its last finished round.

    Raises:
        SettingsError: there is no such run, or it is finished and was to continue.
    """
    before = store.run(name)
    if wanted and before.state == "finished":
        raise SettingsError(f"Expected a run that is not finished, {before.id} is.")
    store.want(before.id, wanted=wanted)
    note(store, operator, "resume" if wanted else "stop", run=before.id)
    return store.run(before.id)


def finished_adapter(home: Home, store: Store, name: str) -> tuple[Run, Path]:
    """Return a finished run and the folder of its adapter.

    Raises:
        SettingsError: the run is not finished.
    """
    from server.run_process import adapter_folder

    finished = store.run(name)
    if finished.state != "finished":
        raise SettingsError(
            f"Expected a finished run, {finished.id} is {finished.state} after {finished.round} rounds."
        )
    return finished, adapter_folder(home, finished)


def export(home: Home, store: Store, name: str, folder: Path, operator: Operator, *, form: Form = "adapter") -> None:
    """Copy a finished adapter into a new folder, or write the whole model with it; what fails leaves no folder.

    Guarantee: an export is whole or is not there, and takes nothing from one that another made meanwhile.

    Raises:
        SettingsError: the run is not finished, the folder is there, or the form does not suit the task.
        RunError: a graph does not compute what the model does.
    """
    finished, adapter = finished_adapter(home, store, name)
    taken = SettingsError(f"Expected a new folder, {folder} is there.")
    if folder.exists():
        raise taken
    try:
        # half of a model looks like one, and another operator may be exporting to the same place
        with new_folder(folder) as made:
            write_form(adapter, made, form)
    except OSError:
        if folder.exists():
            raise taken from None
        raise
    note(store, operator, "export", run=finished.id, folder=str(folder.resolve()), form=form)


def note(store: Store, operator: Operator, action: str, **details: Any) -> None:
    """Write to the event log what an operator did, who it was, and from where."""
    store.record_operator(action, {"who": operator.who, "from": operator.where, **details})


def _pinned_model(study: "Study") -> "Model":
    """Name a model by its fingerprints, and its folder in full: the run starts in whatever folder the server does."""
    from shared.base_models.loaded_weights import pinned_weights
    from shared.base_models.locate import find
    from shared.tasks.registry import task_kind

    model, files = study.model, find(study.model)
    pinned = {"fingerprint": files.fingerprint, **pinned_weights(model, files, task_kind(study.task).auto)}
    if model.bundled_name is None and model.revision is None:
        pinned["source"] = str(files.directory.resolve())
    return model.model_copy(update=pinned)
