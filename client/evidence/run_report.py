"""States the facts of one run for a report, from the ledger and the node's files: no dataset's name, no record."""

import math
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from client.vault.ledger.ledger import Ledger
from client.vault.ledger.outbox import Outbox
from client.vault.ledger.rows import UNDECLARED, ApprovedRun
from client.vault.ledger.state import LedgerState
from client.vault.review.node_files import NodeFiles
from shared.errors import FedVaultError, SettingsError
from shared.evidence.facts import (
    Budget,
    Decided,
    Further,
    House,
    Incident,
    Language,
    Left,
    Mechanism,
    Policy,
    Position,
    Release,
    Report,
    RunFacts,
    StudyFacts,
    Trust,
    meaning,
)
from shared.evidence.receipt import if_all_collude
from shared.evidence.signed_report import renderer
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SharedGaussian, SubsampledGaussian, times
from shared.study.declaration import Study


def run_report(
    node: NodeFiles,
    run: str | None,
    *,
    language: Language = "en",
    issuer: str = "",
    server_rounds: int | None = None,
    further: Further | None = None,
) -> Report:
    """Return the report of a run, unsigned; without a name, of the run that was approved last.

    Raises:
        SettingsError: the ledger does not know the run, or knows none.
    """
    with node.open_ledger() as ledger:
        state = ledger.state
        name = run if run is not None else next(reversed(state.runs), "")
        approved = state.runs.get(name)
        if approved is None:
            known = ", ".join(state.runs) or "none"
            raise SettingsError(f"Expected a run of the ledger ({known}), got {name!r}.")
        delta, rounds = state.budget(approved.dataset).limit.delta, len(approved.attempts)
        spent = epsilon_rdp(approved.spent(), delta)
        length, released = _length(ledger, name, approved), _released(approved)
        return Report(
            kind="node",
            language=language,
            fedvault=version("fedvault"),
            renderer=renderer(),
            issued=datetime.now(UTC).isoformat(timespec="seconds"),
            issuer=issuer,
            study=_study(node, state, name, approved, delta),
            run=_run(state, name, approved),
            left=Left(updates=len(released), bytes=None if length is None else len(released) * length),
            houses=(
                House(
                    name=issuer,
                    rounds=rounds,
                    released=len(released),
                    bytes_each=length,
                    epsilon=spent,
                    releases=released,
                ),
            ),
            budget=_budget(state, name, approved),
            meaning=meaning(spent),
            mechanism=_mechanism(approved),
            trust=_trust(approved, delta, spent),
            decisions=tuple(
                Decided(answer=one.answer, time=one.time, by=one.by, note=one.note)
                for one in state.decisions.get(name, ())
            ),
            policy=_policy(node, state, approved),
            incidents=_incidents(state, name, approved),
            server_rounds=server_rounds,
            ledger=Position(height=ledger.height, head=ledger.head),
            further=further or Further(),
        )


def _released(approved: ApprovedRun) -> tuple[Release, ...]:
    digests = sorted(approved.attempts.items())
    return tuple(Release(round=number, sha256=digest) for number, digest in digests if digest is not None)


def _length(ledger: Ledger, run: str, approved: ApprovedRun) -> int | None:
    """Return how long an update is, from any that is still kept: all of a run have one length."""
    outbox = Outbox(ledger.path.with_name("outbox"))
    for number, digest in approved.attempts.items():
        if digest is not None and (update := outbox.find(run, number)) is not None:
            return len(update)
    return None


def _study(node: NodeFiles, state: LedgerState, run: str, approved: ApprovedRun, delta: float) -> StudyFacts:
    unit = state.terms.get(approved.dataset, UNDECLARED).unit
    declared = _declared(node, run, approved.study_sha256)
    if declared is None:
        return StudyFacts(name=run, sha256=approved.study_sha256, unit=unit, delta=delta)
    asked, source = declared.study, declared.model.shown_source
    return StudyFacts(
        name=asked.name,
        sha256=approved.study_sha256,
        purpose=asked.stated_purpose,
        requester=asked.requester,
        contact=asked.contact,
        legal_basis=asked.legal_basis,
        retention=asked.retention,
        # of a path only its last part: the rest is of another machine
        base_model=Path(source).name if Path(source).expanduser().is_absolute() else source,
        base_model_fingerprint=declared.model.fingerprint or "",
        unit=unit,
        epsilon=declared.privacy.epsilon,
        delta=delta,
    )


def _declared(node: NodeFiles, run: str, sha256: str) -> Study | None:
    """Return the study of a run, from its snapshot or its offer; None if neither is kept any more."""
    studies = [one.study for one in node.offers.all() if one.run == run]
    with suppress(FedVaultError):
        studies.insert(0, node.approved.study(run))
    return next((study for study in studies if study.sha256 == sha256), None)


def _run(state: LedgerState, name: str, approved: ApprovedRun) -> RunFacts:
    done, first = len(approved.attempts), next(iter(state.decisions.get(name, ())), None)
    facts = RunFacts(
        name=name, state="open", rounds=approved.rounds, rounds_done=done, began="" if first is None else first.time
    )
    if done == approved.rounds:
        return facts.model_copy(update={"state": "finished"})
    if state.account(approved.dataset) & state.withdrawn:
        return facts.model_copy(update={"state": "withdrawn"})
    return facts.model_copy(update={"state": "ended early"}) if approved.closed else facts


def _budget(state: LedgerState, run: str, approved: ApprovedRun) -> Budget:
    account = state.account(approved.dataset)
    spent, used = (state.budget(approved.dataset, earmarked=earmarked) for earmarked in (False, True))
    others = tuple(
        entry
        for name, other in state.runs.items()
        if name != run and other.dataset in account
        for entry in other.spent()
    )
    before, so_far, withdrawn = replace(spent, history=others).epsilon(), spent.epsilon(), account & state.withdrawn
    return Budget(
        before=before,
        run=so_far - before,
        earmarked=0.0 if withdrawn else used.epsilon() - so_far,
        left=0.0 if withdrawn else max(0.0, used.limit.epsilon - used.epsilon()),
        limit=used.limit.epsilon,
        delta=used.limit.delta,
    )


def _trust(approved: ApprovedRun, delta: float, spent: float) -> Trust:
    total_release = times(approved.per_round, len(approved.attempts))
    if isinstance(total_release, SharedGaussian):
        cost = math.fsum(if_all_collude(one, delta) for one in approved.spent())
        return Trust(noise="shared", epsilon_if_all_collude=cost)
    return Trust(noise="own", epsilon_if_all_collude=spent)


def _mechanism(approved: ApprovedRun) -> Mechanism | None:
    noise = approved.per_round
    if not isinstance(noise, SubsampledGaussian) or isinstance(noise, SharedGaussian):
        return None
    steps = noise.count * len(approved.attempts)
    return Mechanism(noise_multiplier=noise.noise_multiplier, sampling_rate=noise.sampling_rate, steps=steps)


def _policy(node: NodeFiles, state: LedgerState, approved: ApprovedRun) -> Policy:
    limit = state.budget(approved.dataset).limit
    today = node.settings.datasets.get(approved.dataset)
    return Policy(
        epsilon=limit.epsilon,
        delta=limit.delta,
        unit=state.terms.get(approved.dataset, UNDECLARED).unit,
        approval="" if today is None else today.approval,
        smallest_cohort=None if today is None else today.smallest_cohort,
    )


def _incidents(state: LedgerState, name: str, approved: ApprovedRun) -> tuple[Incident, ...]:
    newest, over = max(approved.attempts, default=0), state.is_over(name)
    silent = [number for number, digest in sorted(approved.attempts.items()) if digest is None]
    return tuple(
        Incident(
            round=number,
            # a round in progress looks like a lost one
            what="failed" if number in approved.failed else "pending" if number == newest and not over else "lost",
        )
        for number in silent
    )
