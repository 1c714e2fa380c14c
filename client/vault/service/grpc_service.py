"""The vault as a gRPC service on a UNIX socket: one job at a time, its steps streamed, and nothing else said."""

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import numpy as np

from client.vault.service.node_vault import NodeVault
from client.vault_api._generated import vault_pb2, vault_pb2_grpc
from client.vault_api.messages import MESSAGE_SIZES, write_evaluation, write_reply
from shared.errors import RunError
from shared.protocol.messages import (
    LEGS,
    NO_MAC,
    NO_POSITION,
    SUMS_OF,
    EvaluationTask,
    LedgerPosition,
    LegTask,
    Peer,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
)
from shared.protocol.update_encoding import SENT

log = logging.getLogger(__name__)
GRACE_S = 5.0
OWNER_AND_GROUP = 0o660


class Steps:
    """Passes the number of finished steps on to whoever listens to the current job, or ends the job."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[int | TrainReply | Exception] | None = None
        self._cancelled = threading.Event()
        self.done = 0
        """Of the current or last job."""

    def __call__(self, done: int) -> None:
        """One more step is done.

        Raises:
            RunError: the job was cancelled; training stops here, and the round is paid for.
        """
        if self._cancelled.is_set():
            raise RunError("Expected to train on, the job was cancelled.")
        self.done = done
        if self._events is not None:
            self._events.put(done)

    def cancel(self) -> None:
        """End the current job at its next step."""
        self._cancelled.set()

    def start(self, events: "queue.SimpleQueue[int | TrainReply | Exception]") -> None:
        """A job begins."""
        self._events, self._cancelled, self.done = events, threading.Event(), 0


class VaultService(vault_pb2_grpc.VaultServicer):
    """Serves one vault.

    Args:
        vault: answers every question.
        steps: the same object that the vault reports its steps to.
    """

    def __init__(self, vault: NodeVault, steps: Steps) -> None:
        self._vault, self._steps = vault, steps
        self._one_job, self._asked = threading.Lock(), threading.Event()
        self._job = ("", 0)

    def Train(  # noqa: N802 - gRPC's name
        self, request: vault_pb2.TrainRequest, context: grpc.ServicerContext
    ) -> Iterator[vault_pb2.TrainEvent]:
        """Train or resend; a second job at the same time is refused."""
        if not self._one_job.acquire(blocking=False):
            self._asked.set()
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        events: queue.SimpleQueue[int | TrainReply | Exception] = queue.SimpleQueue()
        self._steps.start(events)
        # its own thread: a caller that goes away takes nothing with it, and gets the same bytes when it is back
        threading.Thread(target=self._work, args=(request, events), daemon=True).start()
        while True:
            event = events.get()
            if isinstance(event, int):
                yield vault_pb2.TrainEvent(steps_done=event)
            elif isinstance(event, TrainReply):
                yield vault_pb2.TrainEvent(reply=write_reply(event))
                return
            else:
                context.abort(grpc.StatusCode.INTERNAL, "failed")

    def Status(  # noqa: N802 - gRPC's name
        self, request: vault_pb2.StatusRequest, context: grpc.ServicerContext
    ) -> vault_pb2.StatusReply:
        """Say whether a job runs, and where the ledger stands."""
        del request, context
        position, (run, number) = self._vault.ledger_position(), self._job
        return vault_pb2.StatusReply(
            busy=self._one_job.locked(),
            ledger_height=position.height,
            ledger_head=position.head,
            study_run=run,
            round=number,
            steps_done=self._steps.done,
        )

    def Offer(  # noqa: N802 - gRPC's name
        self, request: vault_pb2.OfferRequest, context: grpc.ServicerContext
    ) -> vault_pb2.OfferReply:
        """Keep a study for a person to decide on."""
        del context
        run, peers = request.study_run, tuple(Peer(peer.name, peer.key_sha256) for peer in request.peers)
        reply = self._vault.offer(StudyOffer(run, request.study_json, peers=peers))
        answer = vault_pb2.OfferReply(status=int(reply.status), declared_size=reply.declared_size)
        if reply.status is Status.APPROVED and request.node_name:
            identity = self._vault.identity(run, name=request.node_name, certificate_key=request.certificate_key)
            if identity is not None:
                answer.exchange_key, answer.signing_key = identity.entry.keys
        return answer

    def Leg(  # noqa: N802 - gRPC's name
        self, request: vault_pb2.LegRequest, context: grpc.ServicerContext
    ) -> vault_pb2.LegReply:
        """Answer a question of a secure sum; a job in progress goes on."""
        del context
        leg = next(known for known in LEGS if known == request.leg)
        purpose = next(known for known in SUMS_OF if known == (request.purpose or "training"))
        task = LegTask(leg, request.study_sha256, request.study_run, request.round, request.content, purpose)
        reply = self._vault.leg(task)
        return vault_pb2.LegReply(status=int(reply.status), content=reply.content)

    def Evaluate(  # noqa: N802 - gRPC's name
        self, request: vault_pb2.EvaluateRequest, context: grpc.ServicerContext
    ) -> vault_pb2.EvaluateReply:
        """Evaluate or resend; a second job at the same time is refused. A caller that is back gets the same bytes."""
        if not self._one_job.acquire(blocking=False):
            self._asked.set()
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        try:
            self._steps.start(queue.SimpleQueue())
            self._job = (request.study_run, request.number)
            position = LedgerPosition(request.ledger_height, request.ledger_head, request.ledger_mac or NO_MAC)
            adapter = np.frombuffer(request.adapter, "<f4").astype(np.float32)
            server_copy = position if position.height else NO_POSITION
            study_sha256, run, roster = request.study_sha256, request.study_run, request.roster
            task = EvaluationTask(study_sha256, run, request.number, adapter, server_copy, roster)
            reply = write_evaluation(self._vault.evaluate(task))
            self._asked.clear()
        except Exception:
            # the cause may be data, and whoever waits for the answer must get one
            log.exception("The vault failed; the link is told only that it failed.")
            reply = b""
        finally:
            self._one_job.release()
        if not reply:
            context.abort(grpc.StatusCode.INTERNAL, "failed")
        return vault_pb2.EvaluateReply(reply=reply)

    def Forget(  # noqa: N802 - gRPC's name
        self, request: vault_pb2.ForgetRequest, context: grpc.ServicerContext
    ) -> vault_pb2.ForgetReply:
        """Forget what the ledger has ended; a job of an ended run ends first."""
        del request, context
        self._vault.forget_ended(self.interrupt)
        return vault_pb2.ForgetReply()

    def interrupt(self) -> None:
        """End the current job at its next step, or what it measures at the next batch."""
        self._asked.set()
        self._steps.cancel()

    def _work(self, request: vault_pb2.TrainRequest, events: "queue.SimpleQueue[int | TrainReply | Exception]") -> None:
        try:
            adapter = np.frombuffer(request.adapter, "<f4").astype(np.float32)
            position = LedgerPosition(request.ledger_height, request.ledger_head, request.ledger_mac or NO_MAC)
            server_copy = position if position.height else NO_POSITION
            wire = next(known for known in SENT if known == (request.wire or "float32"))
            study_sha256, run, number, roster = request.study_sha256, request.study_run, request.round, request.roster
            task = TrainTask(study_sha256, run, number, adapter, server_copy, wire=wire, roster=roster)
            self._job = (request.study_run, request.round)
            reply = self._vault.train(task)
            self._asked.clear()
            events.put(reply)
            if reply.status is Status.TRAINED:
                self._vault.measure(task, self._make_way)
        except Exception as error:
            # the cause may be data, and whoever waits for the answer must get one
            log.exception("The vault failed; the link is told only that it failed.")
            events.put(error)
        finally:
            self._one_job.release()

    def _make_way(self) -> None:
        """A round that is asked for comes before figures that only this node sees.

        Raises:
            RunError: one is asked for.
        """
        if self._asked.is_set():
            raise RunError("Expected time to measure, the next round was asked for.")


@contextmanager
def serving(service: VaultService, socket: Path, *, group: int | None = None) -> Iterator[grpc.Server]:
    """Serve on a UNIX socket that only this user can reach, or one group beside it if the operator named one.

    Guarantee: the vault listens on a UNIX socket with owner-only permissions and on no network address.
    """
    with serving_on(socket, partial(vault_pb2_grpc.add_VaultServicer_to_server, service), group=group) as server:
        yield server


@contextmanager
def serving_on(socket: Path, add: Callable[[grpc.Server], None], *, group: int | None = None) -> Iterator[grpc.Server]:
    """Serve what `add` puts into a server, on a socket of this user, or of one group beside it."""
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(4), options=MESSAGE_SIZES)
    add(server)
    old = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{socket.resolve()}")
    finally:
        os.umask(old)
    if group is not None:
        os.chown(socket, -1, group)
        socket.parent.chmod(0o750)
        os.chown(socket.parent, -1, group)
        socket.chmod(OWNER_AND_GROUP)
    server.start()
    try:
        yield server
    finally:
        server.stop(GRACE_S).wait()
