"""What will go wrong later, found now: each check says what it saw, and a failing one what to do."""

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx

from client.deployment import side
from client.link.fleet import CUT, NotAccepted, Refused, through, tls_context
from client.link.loop import read_link
from client.link.membership import Membership, membership
from client.link.vault_client import VaultClient
from client.settings import NodeSettings
from client.vault.review.review import StudyReview
from shared.base_models.locate import find_by_fingerprint
from shared.errors import BudgetError, DataError, FedVaultError, PolicyRefusal, RunError
from shared.privacy.noise_schedule import declared_size
from shared.records.tables import columns_of, content_columns, read_table
from shared.study.declaration import Study

if TYPE_CHECKING:
    import pandas as pd

    from client.vault.records.snapshot import Facts
    from shared.records.ragged import Records

LEAST_FREE_BYTES = 2 * 2**30
LARGEST_SKEW_S = 5.0
TIMED_STEPS = 3
LEAST_LEFT, MOST_UNUSABLE, LEAST_FREE_MEMORY = 0.01, 0.1, 0.05
"""Fractions beyond which a check fails: of a budget, of the records, of a memory."""
FIT = "End other programs on this device, or lower [performance] micro_batch_tokens: the result stays the same."


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

    In two containers each half is examined in its own, and the link's asks whether the vault answers.

    Args:
        config: the node's settings.
        study: also check this one on `dataset`: labels, exactness, speed, memory.
        dataset: of node.toml.
    """
    review = StudyReview(config)
    try:
        settings = review.settings
    except FedVaultError as error:
        yield _failed("settings", error)
        return
    yield Finding("settings", True, f"{config}: datasets {', '.join(settings.datasets) or 'none'}")
    half = side()
    if half.has_vault:
        yield _tried("ledger", lambda: _ledger(review))
    yield _disk(review.folders.home if half.has_vault else review.folders.link)
    if half.has_link:
        yield from _server(review, settings)
    if not half.has_vault:
        yield _tried("vault", lambda: _vault(review))
        return
    for name in settings.datasets:
        yield _tried(f"{name}: data", lambda name=name: _data(review, name))  # type: ignore[misc]
        yield _tried(f"{name}: base models", lambda name=name: _models(review, name))  # type: ignore[misc]
        yield _tried(f"{name}: budget", lambda name=name: _budget(review, name))  # type: ignore[misc]
    if study is not None and dataset is not None:
        taken = cache(lambda: review.snapshot(study, dataset))
        yield _tried("study: policy and budget", lambda: _question(review, study, dataset))
        yield _tried("study: labels", lambda: _labels(taken().facts))
        yield _tried("study: exactness, speed, memory", lambda: _trial(review, study, dataset, taken().train))


def _tried(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, look())
    except FedVaultError as error:
        return _failed(check, error)
    except MemoryError:
        return Finding(check, False, "out of memory", FIT)
    except (RuntimeError, OSError) as error:
        # a library's or the system's own words, of which the first line says what
        saw = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding(check, False, saw, FIT if "out of memory" in saw else "Mend what the message names.")


def _failed(check: str, error: FedVaultError) -> Finding:
    return Finding(check, False, str(error), error.hint or "Mend what the message names.")


def _ledger(review: StudyReview) -> str:
    with review.ledger() as ledger:
        return f"whole, {ledger.height} rows"


def _vault(review: StudyReview) -> str:
    vault = VaultClient(review.folders.socket)
    try:
        return f"answers, its ledger has {vault.status().ledger_height} rows"
    except grpc.RpcError:
        raise RunError(
            f"Expected the vault to answer at {review.folders.socket}, it does not.",
            hint="Is its container running? Both need one volume for the socket and one group (socket_group).",
        ) from None
    finally:
        vault.close()


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    saw = f"{free / 2**30:.1f} GiB free"
    return Finding("disk", free >= LEAST_FREE_BYTES, saw, "Free some space: a full disk stops training.")


def _server(review: StudyReview, settings: NodeSettings) -> Iterator[Finding]:
    try:
        member = membership(review.folders.link)
    except FedVaultError as error:
        yield _failed("membership", error)
        return
    left = member.expires - datetime.now(UTC)
    yield Finding(
        "certificate", left > timedelta(0), f"ends in {left.days} days", "Ask for a new invite: leave, then join."
    )
    base = review.config.resolve().parent
    try:
        extra = settings.server.authority(base)
        context = tls_context(member.authority_path, member.certificate_path, member.key_path, extra_ca=extra)
        with httpx.Client(verify=context, proxy=through(settings.server.proxy, extra), timeout=15.0) as client:
            answer = client.get(f"https://{member.server}/")
    except (httpx.HTTPError, OSError) as error:
        todo = "Check name, port, firewall and proxy ([server] in node.toml); ask whether the server runs."
        yield Finding("server", False, f"{member.server}: {error}", todo)
        return
    yield Finding("server", True, f"{member.server} answers through TLS")
    yield _clock(answer)
    yield _accepted(member, settings, review)


def _clock(answer: httpx.Response) -> Finding:
    there = parsedate_to_datetime(answer.headers["date"])
    skew = abs((datetime.now(UTC) - there).total_seconds())
    # the header counts whole seconds
    return Finding("clock", skew <= LARGEST_SKEW_S, f"{skew:.0f} s from the server's", "Set it by NTP.")


def _accepted(member: Membership, settings: NodeSettings, review: StudyReview) -> Finding:
    fleet = member.connect(settings.server, review.config.resolve().parent)
    state = read_link(review.folders.link)
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


def _data(review: StudyReview, name: str) -> str:
    policy = review.settings.policy(name)
    source = review.config.resolve().parent / policy.source
    found, label = columns_of(source), policy.columns.get("label", "label")
    wanted = [*content_columns(found, policy.columns).values(), *([policy.unit_column] if policy.unit_column else [])]
    labelled = label in found or "label" in policy.columns
    table = read_table(source, [*wanted, *([label] if labelled else [])])
    usual = declared_size(len(table))
    note = "" if usual == policy.declared_size else f"; rounded to two digits that is {usual}"
    labels = f" ({_counts(table[label])})" if labelled else ""
    return f"{len(table)} rows{labels}, declared {policy.declared_size}{note}. For your eyes only"


def _counts(cells: "pd.Series[str]") -> str:
    return ", ".join(f"{label} {count}" for label, count in cells.str.strip().value_counts().head(8).items())


def _models(review: StudyReview, name: str) -> str:
    found = [find_by_fingerprint(model, review.folders.models) for model in review.settings.policy(name).models]
    return ", ".join(base_files.directory.name for base_files in found)


def _budget(review: StudyReview, name: str) -> str:
    limit, promised = review.settings.policy(name).epsilon, 0.0
    with review.ledger() as ledger:
        state = ledger.state
        if name in state.limits:
            # the ledger keeps what was declared first; node.toml may only be stricter
            limit, promised = min(limit, state.limit(name).epsilon), state.promised(name)
        if state.account(name) & state.withdrawn:
            raise PolicyRefusal("Its records were withdrawn.", hint="Take it out of node.toml.")
    saw = f"epsilon {promised:.3f} of {limit:g} is spent or promised"
    if limit - promised < LEAST_LEFT * limit:
        raise BudgetError(
            f"{saw}: no study fits any more.",
            hint="Reject runs that are not needed: what they have not used is given back. What is spent stays spent.",
        )
    return saw


def _question(review: StudyReview, study: Study, dataset: str) -> str:
    question = review.ask(study, dataset)
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


def _labels(facts: "Facts") -> str:
    usable, every = facts.train - facts.unusable, facts.train
    listed = ", ".join(f"{label} {count}" for label, count in facts.labels.items())
    saw = f"{usable} of {every} training records can be used ({listed}). For your eyes only"
    if facts.unusable > MOST_UNUSABLE * every or not usable:
        raise DataError(
            f"{saw}.", hint="The others have no text, or a label that the study has not: spelling and case count."
        )
    return saw


def _trial(review: StudyReview, study: Study, dataset: str, records: "Records") -> str:
    """Nothing of it leaves: the probe, and a few real steps whose result is thrown away."""
    from client.vault.training.randomness import OsRandomness
    from client.vault.training.round_trainer import RoundTrainer, device_for
    from shared.adapted_model.model import build

    performance = review.settings.performance
    local = study.model_copy(update={"performance": performance.model_copy(update={"activation_cache": False})})
    model = build(local, review.base_files(study)).to(device_for(performance.device))
    vault = RoundTrainer(
        local,
        model,
        records,
        declared_size=review.settings.policy(dataset).declared_size,
        randomness=lambda _round: OsRandomness(),
    )
    trainer = vault.trainer()
    start = model.packed()
    trainer.train_round(start, factors=[1.0], randomness=OsRandomness())
    started = time.monotonic()
    trainer.train_round(start, factors=[1.0] * TIMED_STEPS, randomness=OsRandomness())
    seconds = (time.monotonic() - started) / TIMED_STEPS
    minutes = seconds * study.training.local_steps / 60
    device = next(model.parameters()).device
    pace = f"exact; {seconds:.2f} s a step on {device.type}, {minutes:.1f} minutes a round at most"
    return f"{pace}, {_fit(memory_of(device.type))}"


@dataclass(frozen=True)
class Memory:
    """What a trial took of a memory, and what is left of it beside."""

    of: str
    peak_bytes: int
    free_bytes: int
    total_bytes: int


def memory_of(device: str) -> Memory:
    """The memory that training on a device needs most: a GPU's own, or this machine's."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        # what a trial reserved is given back when it ends, and is there for the next
        reserved = torch.cuda.memory_reserved()
        return Memory("GPU memory", torch.cuda.max_memory_reserved(), free + reserved, total)
    page = os.sysconf("SC_PAGE_SIZE")
    free, total = (os.sysconf(name) * page for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    return Memory("memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10, _available(free), total)


def _available(free: int) -> int:
    """Free memory with what the system would give up for it, where it says so."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 2**10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return free


def _fit(memory: Memory) -> str:
    saw = (
        f"{memory.peak_bytes / 2**30:.1f} GiB of {memory.of}, "
        f"{memory.free_bytes / 2**30:.1f} of {memory.total_bytes / 2**30:.1f} GiB free"
    )
    if memory.free_bytes < LEAST_FREE_MEMORY * memory.total_bytes:
        raise RunError(f"It fitted this once: {saw}.", hint=FIT)
    return saw
