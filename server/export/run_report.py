"""States the facts of one run for a report: from the run store, and from receipts that nodes have handed over."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from server.export.model_card import PAID_FOR, Asked, base_name, rounds_paid
from server.export.plugins import PLUGIN, plugins_of
from server.private_evaluation.results import RunEvaluations, evaluations_of
from server.run_store.store import Store
from server.run_store.values import Run
from shared.errors import PeerError, SettingsError
from shared.evidence.facts import (
    Answer,
    Further,
    House,
    Incident,
    Interval,
    Language,
    Left,
    Report,
    RunFacts,
    StudyFacts,
    Trust,
    meaning,
)
from shared.evidence.receipt import Receipt, if_all_collude, signer, verify
from shared.evidence.signed_report import renderer
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.collusion import whole_run
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import SharedGaussian
from shared.private_evaluation.estimates import HIGHER_IS_BETTER
from shared.private_evaluation.noise import all_counts
from shared.study.declaration import Study
from shared.study.secure_sum import sum_sizes
from shared.tasks.registry import task_kind

ADAPTER_FACTS = "fedvault.json"
DEVIATIONS = 1.959964
"""Of a standard normal, on either side of 95 %."""
Rounds = Sequence[tuple[dict[str, Any], dict[str, Any] | None]]


def run_report(
    store: Store,
    run: Run,
    adapter: Path,
    *,
    receipts: Sequence[str] = (),
    authority: bytes = b"",
    language: Language = "en",
    issuer: str = "",
    further: Further | None = None,
) -> Report:
    """Return the report of a run, unsigned, at whatever point it is.

    Args:
        store: open.
        run: of the store.
        adapter: the folder of its adapter, if it is finished.
        receipts: files that nodes handed over.
        authority: PEM certificates of all that this federation ever had, which say whose receipts they are.
        language: of its pages.
        issuer: the server's name.
        further: parts that somebody measured.

    Raises:
        DataError: the study of the run is damaged.
        PeerError: a receipt is not one of this run by a node of it.
    """
    study, rounds, names = run.study, store.rounds(run.id), store.names()
    records = [record for record, _ in rounds]
    asked = _asked(store, run)
    handed_over = [_checked(written, run, authority) for written in receipts]
    houses = _houses(study, records, names, asked, dict(handed_over))
    spent = max((house.epsilon for house in houses), default=0.0)
    evaluations = evaluations_of(store, run)
    return Report(
        kind="server",
        language=language,
        fedvault=version("fedvault"),
        renderer=renderer(),
        issued=datetime.now(UTC).isoformat(timespec="seconds"),
        issuer=issuer,
        study=_study(study),
        run=_run(run, len(records)),
        answer=_answer(study, rounds[: evaluations.handed_out(len(rounds))]) or _answer_by_counts(evaluations),
        left=_left(houses),
        houses=houses,
        meaning=meaning(spent),
        trust=_trust(study, houses, records, spent),
        incidents=_incidents(records, names),
        adapter_sha256=_adapter(adapter),
        further=(further or Further()).model_copy(
            update={
                "evaluation": evaluations.of_adapter,
                "choice": evaluations.choice,
                "plugins": plugins_of(store.events(run.id, kind=PLUGIN)),
            }
        ),
    )


def _left(houses: Sequence[House]) -> Left:
    return Left(
        houses=len(houses),
        updates=sum(house.released or 0 for house in houses),
        bytes=None
        if None in [house.bytes_each for house in houses]
        else sum((house.bytes_each or 0) * (house.released or 0) for house in houses),
    )


def _asked(store: Store, run: Run) -> Asked:
    events = store.events(run.id, kind="asked")
    return [(one.body["round"], one.body["nodes"]) for one in events if isinstance(one.body.get("nodes"), list)]


def wilson(share: float, count: int) -> Interval:
    """Return a share of `count` independent trials with its interval of 95 %.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22.
    """
    squared = DEVIATIONS**2 / count
    middle = (share + squared / 2) / (1 + squared)
    half = DEVIATIONS / (1 + squared) * math.sqrt(share * (1 - share) / count + squared / (4 * count))
    return Interval(value=share, low=middle - half, high=middle + half)


def _study(study: Study) -> StudyFacts:
    asked = study.study
    return StudyFacts(
        name=asked.name,
        sha256=study.sha256,
        purpose=asked.stated_purpose,
        requester=asked.requester,
        contact=asked.contact,
        legal_basis=asked.legal_basis,
        retention=asked.retention,
        base_model=base_name(study),
        base_model_fingerprint=study.model.fingerprint or "",
        unit=study.privacy.unit,
        epsilon=study.privacy.epsilon,
        delta=study.privacy.delta,
    )


def _run(run: Run, done: int) -> RunFacts:
    ends = {"finished": "finished", "stopped": "stopped", "failed": "failed"}
    if done < run.rounds:
        ends["finished"] = "ended early"
    facts = {"name": run.id, "state": ends.get(run.state, "open"), "rounds": run.rounds, "rounds_done": done}
    return RunFacts.model_validate(
        facts | {"began": run.created, "reason": run.reason if run.state == "failed" else ""}
    )


def _answer(study: Study, rounds: Rounds) -> Answer | None:
    kind = task_kind(study.task)
    evaluation = next((one for _, one in reversed(rounds) if one and kind.metric in one), None)
    if evaluation is None:
        return None
    value, count = float(evaluation[kind.metric]), evaluation.get("records")
    # right or wrong, record by record: for other metrics no interval is known
    counts_hits = kind.metric == "accuracy" and count and 0 <= value <= 1
    return Answer(
        metric=" ".join(kind.metric.split("_")),
        higher_is_better=kind.higher_is_better,
        quality=wilson(value, int(count)) if counts_hits and count else Interval(value=value),
        counted=None if count is None else int(count),
        measured_on="server",
        in_points=kind.higher_is_better and 0 <= value <= 1,
    )


def _answer_by_counts(evaluations: RunEvaluations) -> Answer | None:
    """Return what the sites' noisy counts say of all their held-out units together."""
    evaluated, choice = evaluations.of_adapter, evaluations.choice
    if choice is not None and choice.hands_out:  # the best of several: its interval allows for that
        return Answer(
            metric=choice.measure,
            higher_is_better=True,
            quality=Interval(value=choice.value, low=choice.low, high=choice.high),
            measured_on="counts",
            in_points=True,
        )
    of_all = [one for one in evaluated.estimates if one.scope == "all sites"] if evaluated is not None else []
    shown = next((one for one in of_all if one.measure in HIGHER_IS_BETTER and one.value is not None), None)
    if shown is None or shown.value is None:
        return None
    return Answer(
        metric=shown.measure,
        higher_is_better=True,
        quality=Interval(value=shown.value, low=shown.low, high=shown.high),
        measured_on="counts",
        in_points=True,
    )


def _houses(
    study: Study,
    records: Sequence[dict[str, Any]],
    names: Mapping[int, str],
    asked: Asked,
    receipts: Mapping[str, tuple[Receipt, str]],
) -> tuple[House, ...]:
    schedule, steps = schedule_of(study), study.training.local_steps
    paid = rounds_paid(records, names=names, asked=asked)
    unknown = sorted(set(receipts) - set(paid))
    if unknown:
        raise PeerError(f"Expected receipts of nodes that the run asked, got one of {unknown[0]!r}.")
    length = max((record["bytes_up_per_node"] for record in records), default=0)
    came = Counter(names.get(node, str(node)) for record in records for node in _answered(record))
    houses = []
    for name in sorted(paid):
        receipt, key = receipts.get(name, (None, ""))
        houses.append(
            House(
                name=name,
                rounds=len(paid[name]),
                released=came[name],
                bytes_each=length or None,
                epsilon=epsilon_rdp([schedule.release(len(paid[name]) * steps)], study.privacy.delta),
                receipt_epsilon=None if receipt is None else receipt.epsilon,
                receipt_rounds=None if receipt is None else len(receipt.rounds_paid),
                receipt_key=key,
            )
        )
    return tuple(houses)


def _trust(study: Study, houses: Sequence[House], records: Sequence[dict[str, Any]], spent: float) -> Trust | None:
    """Return whose noise it is; None where it is shared among a number of nodes that no round shows."""
    release = schedule_of(study).release(max((one.rounds for one in houses), default=0) * study.training.local_steps)
    if not isinstance(release, SharedGaussian):
        return Trust(noise="own", epsilon_if_all_collude=spent)
    try:  # a secure sum asks its whole roster in every round
        sizes = sum_sizes(max((len(record["asked"]) for record in records), default=0), study.federation)
    except SettingsError:
        return None
    settled = release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)
    total = whole_run(settled, all_counts(study))
    return Trust(noise="shared", epsilon_if_all_collude=if_all_collude(total, study.privacy.delta))


def _answered(record: Mapping[str, Any]) -> list[int]:
    return [*record["accepted"], *(entry["node"] for entry in record["rejected"])]


def _checked(written: str, run: Run, authority: bytes) -> tuple[str, tuple[Receipt, str]]:
    receipt = verify(written)
    whose = signer(receipt, authority)
    if receipt.run != run.id or receipt.study_sha256 != run.study_sha256:
        raise PeerError(f"Expected receipts of {run.id}, got one of {receipt.run!r} by {whose.name!r}.")
    return whose.name, (receipt, whose.fingerprint)


def _incidents(records: Sequence[dict[str, Any]], names: Mapping[int, str]) -> tuple[Incident, ...]:
    def name(node: Any) -> str:
        return names.get(node, str(node))

    incidents = list[Incident]()
    for record in records:
        number = record["round"]
        if record["outcome"] != "aggregated":
            incidents.append(Incident(round=number, what="below quorum"))
        for entry in record["refused"]:
            status = entry["status"]
            what = status if status in PAID_FOR else "refused"
            incidents.append(Incident(round=number, what=what, who=name(entry["node"]), why=status))
        for entry in record["rejected"]:
            incidents.append(Incident(round=number, what="rejected", who=name(entry["node"]), why=entry["reason"]))
        incidents += [Incident(round=number, what="quiet", who=name(node)) for node in record.get("quiet", [])]
        incidents += [Incident(round=number, what="missing", who=name(node)) for node in record["missing"]]
    return tuple(incidents)


def _adapter(folder: Path) -> str:
    try:
        return str(json.loads((folder / ADAPTER_FACTS).read_text())["adapter_sha256"])
    except (OSError, ValueError, KeyError):
        return ""
