"""What will go wrong later, found now: each check says what it saw, and a failing one what to do."""

import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from client.fleet import CUT, NotAccepted, Refused, tls_context
from client.link import read_link
from client.membership import Membership, membership
from client.settings import NodeSettings
from client.vault.desk import Desk
from shared.errors import BudgetError, FedVaultError, PolicyRefusal
from shared.foundation import find_by_fingerprint
from shared.privacy.planning import declared_size
from shared.sources import read_table
from shared.study import Study

LEAST_FREE_BYTES = 2 * 2**30
LARGEST_SKEW_S = 5.0
TIMED_STEPS = 3


@dataclass(frozen=True)
class Finding:
    """One check."""

    check: str
    ok: bool
    saw: str
    todo: str = ""
    """What to do if it is not ok."""


def examine(config: Path, study: Study | None = None, dataset: str | None = None) -> Iterator[Finding]:
    """Every check in order; later ones are left out where an earlier one makes them pointless.

    Args:
        config: the node's settings.
        study: also check this one on `dataset`: labels, exactness, speed, memory.
        dataset: of node.toml.
    """
    desk = Desk(config)
    try:
        settings = desk.settings
    except FedVaultError as error:
        yield _failed("settings", error)
        return
    yield Finding("settings", True, f"{config}: datasets {', '.join(settings.datasets) or 'none'}")
    yield _tried("ledger", lambda: _ledger(desk))
    yield _disk(desk)
    yield from _server(desk, settings)
    for name in settings.datasets:
        yield _tried(f"{name}: data", lambda name=name: _data(desk, name))  # type: ignore[misc]
        yield _tried(f"{name}: base models", lambda name=name: _models(desk, name))  # type: ignore[misc]
        yield _tried(f"{name}: budget", lambda name=name: _budget(desk, name))  # type: ignore[misc]
    if study is not None and dataset is not None:
        yield _tried("study: policy and budget", lambda: _question(desk, study, dataset))
        yield _tried("study: exactness, speed, memory", lambda: _trial(desk, study, dataset))


def _tried(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, look())
    except FedVaultError as error:
        return _failed(check, error)


def _failed(check: str, error: FedVaultError) -> Finding:
    return Finding(check, False, str(error), error.hint or "Mend what the message names.")


def _ledger(desk: Desk) -> str:
    with desk.ledger() as ledger:
        return f"whole, {ledger.height} rows"


def _disk(desk: Desk) -> Finding:
    folder = desk.folders.home
    free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    saw = f"{free / 2**30:.1f} GiB free"
    return Finding("disk", free >= LEAST_FREE_BYTES, saw, "Free some space: a full disk stops training.")


def _server(desk: Desk, settings: NodeSettings) -> Iterator[Finding]:
    try:
        member = membership(desk.folders.link)
    except FedVaultError as error:
        yield _failed("membership", error)
        return
    left = member.expires - datetime.now(UTC)
    yield Finding(
        "certificate", left > timedelta(0), f"ends in {left.days} days", "Ask for a new invite: leave, then join."
    )
    base = desk.config.resolve().parent
    try:
        extra = base / settings.server.extra_ca if settings.server.extra_ca else None
        context = tls_context(member.authority_path, member.certificate_path, member.key_path, extra_ca=extra)
        with httpx.Client(verify=context, proxy=settings.server.proxy, timeout=15.0) as client:
            answer = client.get(f"https://{member.server}/")
    except (httpx.HTTPError, OSError) as error:
        todo = "Check name, port, firewall and proxy ([server] in node.toml); ask whether the server runs."
        yield Finding("server", False, f"{member.server}: {error}", todo)
        return
    yield Finding("server", True, f"{member.server} answers through TLS")
    yield _clock(answer)
    yield _accepted(member, settings, desk)


def _clock(answer: httpx.Response) -> Finding:
    there = parsedate_to_datetime(answer.headers["date"])
    skew = abs((datetime.now(UTC) - there).total_seconds())
    # the header counts whole seconds
    return Finding("clock", skew <= LARGEST_SKEW_S, f"{skew:.0f} s from the server's", "Set it by NTP.")


def _accepted(member: Membership, settings: NodeSettings, desk: Desk) -> Finding:
    fleet = member.connect(settings.server, desk.config.resolve().parent)
    state = read_link(desk.folders.link)
    try:
        fleet.activate(state.node_id or member.node_id)
    except NotAccepted as error:
        todo = "Ask the server's operator whether this node was revoked. Right after a crash: wait a minute."
        return Finding("key", False, str(error), todo)
    except (*CUT, Refused) as error:
        return Finding("key", False, str(error), "The gateway answers but Flower does not: ask the server's operator.")
    finally:
        # a link that runs goes on being present; without one the node is not
        fleet.close(deactivate=not state.connected)
    return Finding("key", True, f"accepted as {member.name}")


def _data(desk: Desk, name: str) -> str:
    policy = desk.settings.policy(name)
    table = read_table(desk.config.resolve().parent / policy.source, policy.columns)
    counts = table[policy.label_column].str.strip().value_counts()
    labels = ", ".join(f"{label} {count}" for label, count in counts.head(8).items())
    usual = declared_size(len(table))
    note = "" if usual == policy.declared_size else f"; rounded to two digits that is {usual}"
    return f"{len(table)} rows ({labels}), declared {policy.declared_size}{note}. For your eyes only"


def _models(desk: Desk, name: str) -> str:
    found = [find_by_fingerprint(model, desk.folders.models) for model in desk.settings.policy(name).models]
    return ", ".join(foundation.directory.name for foundation in found)


def _budget(desk: Desk, name: str) -> str:
    policy = desk.settings.policy(name)
    with desk.ledger() as ledger:
        promised = ledger.books.promised(name) if name in ledger.books.limits else 0.0
    return f"epsilon {promised:.3f} of {policy.epsilon:g} is spent or promised"


def _question(desk: Desk, study: Study, dataset: str) -> str:
    question = desk.ask(study, dataset)
    if question.objections:
        raise PolicyRefusal(
            f"The policy refuses: {'; '.join(question.objections)}.", hint="Change node.toml, or say no."
        )
    if question.epsilon_after > question.epsilon_limit:
        raise BudgetError(
            f"It would promise epsilon {question.epsilon_after:.3f} of {question.epsilon_limit:g}.",
            hint="Say no, or ask for a study that costs less.",
        )
    return f"would promise epsilon {question.epsilon_after:.3f} of {question.epsilon_limit:g}"


def _trial(desk: Desk, study: Study, dataset: str) -> str:
    """Nothing of it leaves: the probe, and a few real steps whose result is thrown away."""
    import numpy as np

    from client.vault.randomness import OsRandomness
    from client.vault.vault import Vault, device_for
    from shared.adapted_model import build

    snapshot = desk.snapshot(study, dataset)
    performance = desk.settings.performance
    local = study.model_copy(update={"performance": performance.model_copy(update={"prefix_cache": False})})
    model = build(local, desk.foundation(study)).to(device_for(performance.device))
    vault = Vault(
        local,
        model,
        snapshot.train,
        declared_size=desk.settings.policy(dataset).declared_size,
        randomness=lambda _round: OsRandomness(),
    )
    trainer = vault.trainer()
    zeros = np.zeros(model.layout.length, np.float32)
    trainer.train_round(zeros, factors=[1.0], randomness=OsRandomness())
    started = time.monotonic()
    trainer.train_round(zeros, factors=[1.0] * TIMED_STEPS, randomness=OsRandomness())
    seconds = (time.monotonic() - started) / TIMED_STEPS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    minutes = seconds * study.training.local_steps / 60
    device = next(model.parameters()).device.type
    return f"exact; {seconds:.2f} s a step on {device}, {minutes:.1f} minutes a round at most, {peak:.1f} GiB of memory"
