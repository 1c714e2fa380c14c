"""The process that drives one run: Flower's ServerApp with our coordinator, from the last checkpoint to the end.

It may be killed at any moment: the next one continues after the last finished round, in a new Flower run, under the
same name, so that nodes that have trained the round in flight send the same bytes again and none is charged twice. How
often that round was asked is kept as well.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict

from server.aggregation.method import method_for
from server.app import build_server_app
from server.export.adapter import export
from server.export.model_card import write_card
from server.export.plugins import PLUGIN, plugins_of
from server.flower.control import Control
from server.flower.grid import drive_run
from server.gateway.registration import synchronise_nodes
from server.private_evaluation.asking import PrivateEvaluations, histogram_bytes
from server.private_evaluation.results import RunEvaluations, evaluations_of
from server.private_evaluation.stored import StoredEvaluations
from server.rounds.checkpoints import Checkpoints, State
from server.rounds.evaluation import evaluator
from server.rounds.participants import ApprovedOnly, why_it_waits
from server.rounds.round import RoundRecord
from server.rounds.update_bounds import keep_within, noise_floor, norm_bound
from server.run_store.store import Store
from server.run_store.values import Run
from server.runs.ends import INTERRUPTED, STARTED, as_event, has_failed, in_words, needs_a_person, steps_aside
from server.secure_sum.deployment import SecureRun
from server.secure_sum.history import sum_history
from server.settings import Home
from server.tracking.background import InBackground
from server.tracking.from_store import curves_of
from server.tracking.mlflow_server import send
from shared.adapted_model.model import initial_adapter, layout_of
from shared.environment import QUIET
from shared.logs import without_stopping
from shared.privacy.adapter_bound import part_places
from shared.processes.supervisor import last_exit
from shared.protocol.messages import NO_POSITION, LedgerPosition, StudyOffer
from shared.protocol.update_encoding import packed_bytes
from shared.secure_sum.messages import most_masked_bytes

log = logging.getLogger(__name__)
ASKED = "asked"


class StoreObserver:
    """Writes the events of a run into the run store, for whoever watches, and keeps the nodes' ledger positions there.

    Guarantee: a reply costs one transaction, a round two more, however long the run is.

    Args:
        store: open.
        run: its name.
        waits: its state is `waiting` already.
        on_round: called when a finished round is in the store.
    """

    def __init__(
        self, store: Store, run: str, *, waits: bool = False, on_round: Callable[[], None] = lambda: None
    ) -> None:
        self._store, self._run, self._waits, self._on_round = store, run, waits, on_round
        self._waits_for: tuple[dict[str, list[int]], list[int]] | None = None
        self._positions, self._came_with_answer = dict[int, LedgerPosition](), NO_POSITION
        self._waits_in_round = ""

    def asks(self, number: int, nodes: Sequence[int], *, again: Sequence[int] = (), ask: int = 1) -> None:
        """Write whom a round asks; once more if it is asked again, or its process died."""
        body = {"round": number, "nodes": list(nodes), "again": list(again), "ask": ask}
        self._store.record_event(ASKED, body, run=self._run)

    def gone(self, number: int, node: int) -> None:
        """Write that a node's connection broke before it answered."""
        self._store.record_event("gone", {"round": number, "node": node}, run=self._run)

    def answered(self, number: int, answered: int, asked: int, *, node: int, verdict: str) -> None:
        """Write a node's answer, with the ledger position that came with it."""
        body = {"round": number, "answered": answered, "asked": asked, "node": node, "verdict": verdict}
        position, self._came_with_answer = self._came_with_answer, NO_POSITION
        self._store.record_answer(body, run=self._run, node=node, position=position)

    def ledger_position(self, node: int) -> LedgerPosition:
        """Return the position to send with a node's next task; nobody but this process changes it."""
        if node not in self._positions:
            self._positions[node] = self._store.ledger_position(node)
        return self._positions[node]

    def save_ledger_position(self, node: int, position: LedgerPosition) -> None:
        """Take note of the position that came with a node's answer, which is written next."""
        self._came_with_answer = position
        self.note_position(node, position)

    def note_position(self, node: int, position: LedgerPosition) -> None:
        """Take note of a position that is in the store, or will be with the answer."""
        if position.height > self.ledger_position(node).height:
            self._positions[node] = position

    def finished(self, record: RoundRecord | None, evaluation: dict[str, Any] | None) -> None:
        """Write a finished round."""
        if record is None:
            return
        self._store.record_round(self._run, record.as_dict(), evaluation)
        self._on_round()

    def present(self, by_status: dict[str, list[int]]) -> None:
        """Write which nodes are present, by their answer to the offer."""
        self._store.record_event("present", by_status, run=self._run)

    def waits(self, by_status: dict[str, list[int]], away: list[int], *, quorum: int) -> None:
        """Write what keeps the run from its next round; another run may be driven meanwhile."""
        if (by_status, away) == self._waits_for:
            return
        self._waits, self._waits_for = True, (by_status, list(away))
        enrolled = sum(node.status == "enrolled" for node in self._store.nodes())
        self._store.set_state(
            self._run, "waiting", reason=why_it_waits(by_status, away=len(away), quorum=quorum, enrolled=enrolled)
        )

    def note(self, kind: str, body: dict[str, Any]) -> None:
        """Write an event of the run's secure sum."""
        self._store.record_event(kind, body, run=self._run)

    def waits_for_nodes(self, reason: str) -> None:
        """Write what a round with a secure sum waits for, or that it goes on if there is nothing."""
        if not reason:
            self.goes_on()
        elif reason != self._waits_in_round:
            self._waits = True
            self._store.set_state(self._run, "waiting", reason=reason)
        self._waits_in_round = reason

    def goes_on(self) -> None:
        """Write that the run waits no longer."""
        if self._waits:
            self._waits, self._waits_for = False, None
            self._store.set_state(self._run, "running")


def drive(home: Home, name: str) -> None:
    """Drive a run to its end.

    Raises:
        Exception: it cannot continue now; the run's state says whether it is tried again.
    """
    os.environ |= QUIET | {"FLWR_HOME": str(home.flower)}
    with Store(home.database()) as store:
        run = store.run(name)
        # closed last: what is sent then says how the run ended
        with InBackground(_sender(home, run)) as curves:
            store.record_event(STARTED, {"after_exit": last_exit()}, run=run.id)
            events = store.events(run.id)
            if reason := has_failed(events):
                _fail(store, run, reason)
                return
            aside = steps_aside(events)
            store.set_state(run.id, "waiting" if aside else "running", reason=aside)
            try:
                _drive(home, store, run, StoreObserver(store, run.id, waits=bool(aside), on_round=curves.soon))
            except Exception as error:
                _note_end(store, run, error)
                raise


def _sender(home: Home, run: Run) -> Callable[[], object] | None:
    """Return what sends the run's curves to where server.toml says; None where it names nothing."""
    uri = home.settings().mlflow

    def send_all() -> None:
        with Store(home.database()) as store:
            send(uri, curves_of(store, run, adapter_folder(home, run)))

    return send_all if uri else None


def _note_end(store: Store, run: Run, error: Exception) -> None:
    """Write what ended the process, and that the run has failed if no retry can mend it."""
    if needs_a_person(error):
        _fail(store, run, in_words(error))
        return
    store.record_event(INTERRUPTED, as_event(error), run=run.id)
    if reason := has_failed(store.events(run.id)):
        _fail(store, run, reason)


def _fail(store: Store, run: Run, reason: str) -> None:
    store.set_state(run.id, "failed", reason=reason)
    store.record_event("failed", {"reason": reason}, run=run.id)


def _drive(home: Home, store: Store, run: Run, observer: StoreObserver) -> None:
    study, folder = run.study, home.runs / run.id
    latest = Checkpoints(folder / "checkpoints").latest(study_sha256=study.sha256, study_run=run.id)
    if latest is not None:
        _complete_history(store, run, latest)
    _note_plugin(store, run)
    initial, layout, settings = initial_adapter(study), layout_of(study), home.settings()
    control = Control(home)
    control.wait_until_it_answers()
    synchronise_nodes(store, control)
    control.close()
    evaluate = None
    if settings.evaluation:
        table, cache = home.folder / settings.evaluation, home.folder / "cache"
        evaluate = evaluator(study, table, settings.evaluation_columns, cache=cache)
    finished: list[State] = []
    secure, largest_norm = None, lru_cache(maxsize=None)(partial(norm_bound, study, layout=layout))
    floors = lru_cache(maxsize=None)(partial(noise_floor, study, layout))
    if study.federation.secure_sum is not None:
        secure = SecureRun(folder, store, run.id, study, note=observer.note, waits=observer.waits_for_nodes)
    update_bytes = most_masked_bytes(len(initial)) if secure else packed_bytes(len(initial), study.federation.wire)
    storage, within = StoredEvaluations(store, run.id, observer), keep_within(study, layout, initial)
    opening = secure.opening if secure else lambda _grid: None
    with drive_run(home, update_bytes=max(update_bytes, histogram_bytes(study))) as grid:
        app = build_server_app(
            study,
            run.id,
            folder / "checkpoints",
            initial=initial,
            on_done=finished.append,
            largest_norm=largest_norm,
            floors=floors,
            parts=[*part_places(layout).values()],
            within=within,
            evaluate=evaluate,
            observer=observer,
            participants=lambda grid: (secure.participants if secure else ApprovedOnly)(
                grid,
                StudyOffer(run.id, study.canonical_json(), study.versions),
                quorum=study.federation.quorum,
                patience_s=study.federation.deadline_s,
                on_change=observer.present,
                on_wait=lambda by_status, away: observer.waits(
                    by_status, away, quorum=secure.roster.quorum if secure else study.federation.quorum
                ),
                on_enough=observer.goes_on,
            ),
            ledger_copies=observer,
            grace_s=settings.grace_s,
            secure_sum=(lambda grid: secure.rounds(grid, layout, largest_norm)) if secure else None,
            evaluate_privately=lambda grid: (
                PrivateEvaluations(grid, study, run.id, settings.grace_s, storage, within, opening(grid)).after
            ),
        )
        app(grid, Context(run_id=grid.run.run_id, node_id=1, node_config={}, state=RecordDict(), run_config={}))
    _complete_history(store, run, finished[0])
    _hand_out(store, run, finished[0], folder)


def _hand_out(store: Store, run: Run, state: State, folder: Path) -> None:
    """Write the adapter and its card, that of an earlier round if the study chooses, and that the run is finished."""
    study, evaluations = run.study, evaluations_of(store, store.run(run.id))
    if (number := evaluations.handed_out(state.round)) != state.round:
        state = replace(state, adapter=Checkpoints(folder / "checkpoints").adapter(number))
    export(study, state.adapter, folder / "adapter")
    with without_stopping("The model card"):
        _write_card(folder / "adapter", store, run, state, evaluations)
    store.set_state(run.id, "finished")
    store.record_event("finished", {"rounds": state.round, "handed_out": number}, run=run.id)
    log.info("%s is finished after %d rounds.", run.id, state.round)


def _write_card(folder: Path, store: Store, run: Run, state: State, evaluations: RunEvaluations) -> None:
    write_card(
        folder,
        run.id,
        run.study,
        state,
        names=store.names(),
        asked=_asked_by_round(store, run),
        secure_sum=sum_history(store.events(run.id)),
        evaluations=evaluations,
        plugins=plugins_of(store.events(run.id, kind=PLUGIN)),
    )


def _note_plugin(store: Store, run: Run) -> None:
    """Write which package brings the run's aggregation, once for each version of it that the run goes on with."""
    offered = method_for(run.study).plugin
    if offered is not None and (use := offered.use) not in plugins_of(store.events(run.id, kind=PLUGIN)):
        store.record_event(PLUGIN, use.model_dump(), run=run.id)


def _complete_history(store: Store, run: Run, state: State) -> None:
    """Record rounds that only the checkpoint knows, after a crash between checkpoint and store."""
    known = store.round_numbers(run.id)
    for record in state.records:
        if record["round"] not in known:
            store.record_round(run.id, record, state.evaluations.get(str(record["round"])))


def _asked_by_round(store: Store, run: Run) -> list[tuple[int, list[int]]]:
    """Return every time that a round was begun, and whom it asked."""
    return [(event.body["round"], event.body["nodes"]) for event in store.events(run.id) if event.kind == ASKED]


def adapter_folder(home: Home, run: Run) -> Path:
    """Return the folder of a finished run's adapter."""
    return home.runs / run.id / "adapter"
