"""The Flower ServerApp: wiring only."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.aggregation.method import method_for
from server.rounds.asking import LedgerCopies
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.coordinator import (
    Coordinator,
    Evaluate,
    EvaluatePrivately,
    Floors,
    RunTerms,
    no_private_evaluation,
)
from server.rounds.observer import Observer
from server.rounds.participants import Participants
from server.rounds.replies import SecureSum
from shared.protocol.messages import Vector
from shared.study.declaration import Study


def build_server_app(
    study: Study,
    study_run: str,
    folder: Path,
    *,
    initial: Vector,
    on_done: Callable[[State], None],
    largest_norm: Callable[[int], float],
    floors: Floors | None = None,
    parts: Sequence[Sequence[slice]] = (),
    evaluate: Evaluate | None = None,
    observer: Observer | None = None,
    participants: Callable[[Grid], Participants] | None = None,
    ledger_copies: LedgerCopies | None = None,
    grace_s: float = math.inf,
    within: Callable[[int, Vector], Vector] = lambda _number, adapter: adapter,
    secure_sum: Callable[[Grid], SecureSum] | None = None,
    evaluate_privately: Callable[[Grid], EvaluatePrivately] = lambda _grid: no_private_evaluation,
) -> ServerApp:
    """Wire a ServerApp that runs one study to its end and hands over the final state.

    Args:
        study, study_run: as declared, and the name of this run of it.
        folder: for checkpoints; a run found there is resumed.
        initial, on_done: packed adapter before round 1; receives the final state, for Flower's engines return nothing.
        largest_norm, within: bound on updates, and what cuts an adapter back to what nodes accept; see `update_bounds`.
        floors, parts: what noise makes of updates (`noise_floor`), and where the model's parts stand in one.
        evaluate, observer: evaluates on data that the server's operator owns; receives progress.
        participants, ledger_copies: decide who may be asked, default: everyone present; keep nodes' ledger positions.
        grace_s: how long a round that has its quorum waits for the others; default: up to its deadline.
        secure_sum: of a run whose updates are masked, or, in simulations, could be.
        evaluate_privately: makes what has the nodes evaluate adapters; for a study with a private evaluation.

    Raises:
        SettingsError: the study names no aggregation method that is known here, or one for other adapters.
    """
    app, method, terms = ServerApp(), method_for(study), _terms(study, study_run, grace_s)

    @app.main()
    def main(grid: Grid, _context: Context) -> None:  # the declaration says it all
        coordinator = Coordinator(
            grid,
            terms,
            initial=initial,
            largest_norm=largest_norm,
            aggregation=lambda start: method.start(start._replace(parts=parts)),
            floors=floors,
            checkpoints=Checkpoints(folder, lasting=study.chosen_among),
            evaluate=evaluate,
            observer=observer,
            participants=participants(grid) if participants else None,
            ledger_copies=ledger_copies,
            within=within,
            secure_sum=secure_sum(grid) if secure_sum else None,
            of_mean=method.of_mean,
            evaluate_privately=evaluate_privately(grid),
        )
        on_done(coordinator.run())

    return app


def _terms(study: Study, study_run: str, grace_s: float) -> RunTerms:
    federation = study.federation
    return RunTerms(
        study.sha256,
        study_run,
        federation.rounds,
        federation.quorum,
        federation.deadline_s,
        study.sent_as,
        federation.cohort,
        grace_s,
    )
