"""The process that drives one run: Flower's ServerApp with our coordinator, from the last checkpoint to the end.

It may be killed at any moment: the next one goes on from the last finished round, in a new Flower run, under the same
name, so that nodes that have trained the round in flight send the same bytes again and none is charged twice.
"""

import logging
import os
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict

from server.app import build_server_app, norm_bound
from server.export.adapter import export
from server.export.model_card import write_card
from server.flower.control import Control, drive_run
from server.gateway.process import match
from server.rounds.checkpoints import State
from server.rounds.evaluation import evaluator
from server.rounds.participants import Approving
from server.rounds.round import RoundRecord
from server.run_store import Run, Store
from server.settings import Home
from shared.adapted_model.model import initial_adapter, layout_of
from shared.environment import QUIET
from shared.errors import DataError, FedVaultError, SettingsError
from shared.protocol.messages import StudyOffer
from shared.protocol.versions import spoken_for

log = logging.getLogger(__name__)
ASKED = "asked"


class ToStore:
    """Writes what happens into the run store, for whoever watches."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run

    def asks(self, number: int, nodes: Sequence[int]) -> None:
        """A round begins; also where it began before and its process died."""
        self._store.happened(ASKED, {"round": number, "nodes": list(nodes)}, run=self._run)

    def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
        """One more node has answered."""
        body = {"round": number, "answered": answered, "asked": asked, "node": node, "verdict": verdict}
        self._store.happened("answered", body, run=self._run)

    def finished(self, record: RoundRecord | None, evaluation: dict[str, Any] | None) -> None:
        """A round is over."""
        if record is None:
            return
        self._store.record_round(self._run, record.as_dict(), evaluation)
        self._store.happened("round", record.as_dict() | {"evaluation": evaluation}, run=self._run)

    def waiting(self, stances: dict[str, list[int]]) -> None:
        """Who is present, by how they stand to the study, has changed."""
        self._store.happened("stances", stances, run=self._run)


def drive(home: Home, name: str) -> None:
    """Drive a run to its end.

    Raises:
        FedVaultError: it cannot go on now; the run's state says whether trying again can help.
    """
    os.environ |= QUIET | {"FLWR_HOME": str(home.flower)}
    with Store(home.database()) as store:
        run = store.run(name)
        store.set_state(run.id, "running")
        try:
            _drive(home, store, run)
        except (SettingsError, DataError) as error:
            # trying again would not help: a person has to
            store.set_state(run.id, "failed", reason=str(error))
            store.happened("failed", {"reason": str(error)}, run=run.id)
            raise
        except FedVaultError as error:
            store.happened("interrupted", {"reason": str(error)}, run=run.id)
            raise


def _drive(home: Home, store: Store, run: Run) -> None:
    study, folder, watcher = run.study, home.runs / run.id, ToStore(store, run.id)
    initial, settings = initial_adapter(study), home.settings()
    control = Control(home)
    match(store, control)
    control.close()
    evaluate = None
    if settings.evaluation:
        table, cache = home.folder / settings.evaluation, home.folder / "cache"
        evaluate = evaluator(study, table, settings.evaluation_columns, cache=cache)
    finished: list[State] = []
    with drive_run(home) as grid:
        app = build_server_app(
            study,
            run.id,
            folder / "checkpoints",
            initial=initial,
            on_done=finished.append,
            largest_norm=lru_cache(maxsize=None)(partial(norm_bound, study, layout=layout_of(study))),
            evaluate=evaluate,
            observer=watcher,
            roster=lambda grid: Approving(
                grid,
                StudyOffer(run.id, study.canonical_json(), spoken_for(study.federation.wire)),
                quorum=study.federation.quorum,
                patience_s=study.federation.deadline_s,
                on_change=watcher.waiting,
            ),
            ledger_copies=store,
        )
        app(grid, Context(run_id=grid.run.run_id, node_id=1, node_config={}, state=RecordDict(), run_config={}))
    state = finished[0]
    _complete_history(store, run, state)
    export(study, state.adapter, folder / "adapter")
    write_card(folder / "adapter", run.id, study, state, names=store.names(), asked=_asked(store, run))
    store.set_state(run.id, "finished")
    store.happened("finished", {"rounds": state.round}, run=run.id)
    log.info("%s is finished after %d rounds.", run.id, state.round)


def _complete_history(store: Store, run: Run, state: State) -> None:
    """A crash between a checkpoint and the store leaves a round that only the checkpoint knows."""
    for record in state.records:
        store.record_round(run.id, record, state.evaluations.get(str(record["round"])))


def _asked(store: Store, run: Run) -> list[tuple[int, list[int]]]:
    """Every time a round was begun, and whom it asked."""
    return [(event.body["round"], event.body["nodes"]) for event in store.events(run.id) if event.kind == ASKED]


def adapter_folder(home: Home, run: Run) -> Path:
    """Where a finished run's adapter lies."""
    return home.runs / run.id / "adapter"
