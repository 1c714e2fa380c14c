"""The Flower ServerApp: wiring only."""

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.aggregation.method import start
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.coordinator import Coordinator, Evaluate, LedgerCopies, Observer, RunTerms
from server.rounds.participants import Roster
from server.rounds.update_filter import largest_plausible_norm
from shared.adapted_model.adapters import Layout
from shared.privacy.noise_schedule import plan
from shared.privacy.study_steps import parts_in
from shared.protocol.messages import Vector
from shared.protocol.update_encoding import ROUNDING_ROOM
from shared.study.declaration import Study
from shared.study.schedule import round_factors
from shared.study.sections import MOST_WEIGHT


def build_server_app(
    study: Study,
    study_run: str,
    folder: Path,
    *,
    initial: Vector,
    on_done: Callable[[State], None],
    largest_norm: Callable[[int], float],
    evaluate: Evaluate | None = None,
    observer: Observer | None = None,
    roster: Callable[[Grid], Roster] | None = None,
    ledger_copies: LedgerCopies | None = None,
) -> ServerApp:
    """Wire a ServerApp that runs one study to its end and hands over the final state.

    Args:
        study: as declared.
        study_run: names this run of it.
        folder: for checkpoints; a run found there is resumed.
        initial: packed adapter before round 1.
        on_done: receives the final state; Flower's own engines return nothing.
        largest_norm: bound on an honest update by round number; `norm_bound` for a study.
        evaluate: on data that the server's operator owns.
        observer: told of progress.
        roster: decides who is asked; default: everyone present.
        echoes: keeps what nodes say of their ledgers.
    """
    app = ServerApp()
    federation = study.federation
    terms = RunTerms(
        study.sha256,
        study_run,
        federation.rounds,
        federation.quorum,
        federation.deadline_s,
        federation.wire,
        federation.cohort,
    )

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context  # the declaration says it all
        coordinator = Coordinator(
            grid,
            terms,
            initial=initial,
            largest_norm=largest_norm,
            aggregation=lambda length: start(study.federation.aggregation, length),
            checkpoints=Checkpoints(folder),
            evaluate=evaluate,
            observer=observer,
            roster=roster(grid) if roster else None,
            ledger_copies=ledger_copies,
        )
        on_done(coordinator.run())

    return app


def norm_bound(study: Study, round_number: int, layout: Layout) -> float:
    """The largest norm of an honest update in this round, at the site the study admits that may have the longest one.

    That is the smallest one where sites divide by their own size: its noise is the loudest, and its batch the most
    uneven. Where they divide by a typical size it is one that weighs the most.
    """
    federation, planned = study.federation, plan(study.privacy, steps=study.total_steps)
    moved = parts_in(study, layout.tensors, round_number)
    loudest = max(federation.smallest_declared_size, MOST_WEIGHT * (federation.typical_size or 0))
    return ROUNDING_ROOM[federation.wire] * largest_plausible_norm(
        rate=max(part.learning_rate for part in moved),
        factors=round_factors(study, round_number),
        clip_norm=planned.clip_norm,
        noise_multiplier=planned.noise_multiplier,
        expected_batch=planned.sampling_rate * loudest,
        divisor=planned.sampling_rate * federation.divisor_size(loudest),
        dimension=sum(part.dimension for part in moved),
    )
