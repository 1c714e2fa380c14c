"""The link's view of the vault: ask over the socket, wait through restarts, never import torch."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from client.link.reply_shapes import ReplyShapes, as_long_as_trained
from client.link.roster_signer import RosterSigner
from client.vault_api._generated import vault_pb2, vault_pb2_grpc
from client.vault_api.messages import MESSAGE_SIZES, read_evaluation, read_reply
from shared.errors import PeerError, RunError
from shared.protocol.messages import (
    EvaluationReply,
    EvaluationTask,
    LegReply,
    LegTask,
    OfferReply,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
    without_update,
)
from shared.secure_sum.keys import PublicKeys

log = logging.getLogger(__name__)
OPTIONS = (
    *MESSAGE_SIZES,
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
OFFER_TIMEOUT_S = LEG_TIMEOUT_S = 90.0
SERVED_S = 1.0
"""A call that ends after longer was served by a vault, whatever became of it."""
SILENT_FOR_S = 6 * 3600.0
"""A vault that finishes no step for so long is given up: ten deadlines of half an hour, after which a round is lost."""


class VaultClient:
    """One vault behind its socket.

    Args:
        socket: where the vault listens.
        patience_s: how long to wait for a vault that is down before giving up.
        silent_for_s: how long a round may go on without a finished step, and how long to wait for a vault that is busy:
            how long it is may follow its records, and must not become an answer.
        signer: signs this node's line in rosters; None where there is no certificate's key.
    """

    def __init__(
        self,
        socket: Path,
        *,
        patience_s: float = 600.0,
        silent_for_s: float = SILENT_FOR_S,
        signer: RosterSigner | None = None,
    ) -> None:
        self._silent_for_s, self._signer = silent_for_s, signer
        self.shapes = ReplyShapes()
        self._channel = grpc.insecure_channel(f"unix:{socket.resolve()}", options=OPTIONS)
        self._stub, self._patience_s = vault_pb2_grpc.VaultStub(self._channel), patience_s

    def train(self, task: TrainTask, *, on_step: Callable[[int], None] = lambda _done: None) -> TrainReply:
        """Ask for a round. A vault that dies on the way is asked again when it is back; it will say what it lost.

        One that does not come back in time, finishes no step for too long, or fails in a way that asking again does not
        mend, has `failed`.
        """
        name = "" if self._signer is None else self._signer.name
        try:
            return as_long_as_trained(self._asked_to_train(task, on_step), task, name=name)
        except (RunError, PeerError) as error:
            log.error("Round %d failed: %s", task.round, " ".join(filter(None, (str(error), error.hint))))
            return as_long_as_trained(without_update(task, Status.FAILED), task, name=name)

    def _asked_to_train(self, task: TrainTask, on_step: Callable[[int], None]) -> TrainReply:
        request = vault_pb2.TrainRequest(
            study_sha256=task.study_sha256,
            study_run=task.study_run,
            round=task.round,
            adapter=task.adapter.astype("<f4").tobytes(),
            ledger_height=task.server_copy.height,
            ledger_head=task.server_copy.head,
            ledger_mac=task.server_copy.mac,
            wire=task.wire,
            roster=task.roster,
        )
        patience, pause = _Patience(self._patience_s, self._silent_for_s), FIRST_PAUSE_S
        while True:
            try:
                return self._train(request, on_step, patience)
            except grpc.RpcError as error:
                code = error.code() if isinstance(error, grpc.Call) else None
                if code is grpc.StatusCode.CANCELLED:
                    raise RunError(
                        f"Expected a step of round {task.round} within {self._silent_for_s:.6g} s, got none.",
                        hint="Restart it: fedvault-node stop, then start. The round stays paid for.",
                    ) from None
                if not patience.lasts(code, pause):
                    raise RunError(
                        f"Expected the vault to answer round {task.round}, got {code.name if code else 'nothing'}.",
                        hint="Is the vault running? Its log says why it failed.",
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def offer(self, offer: StudyOffer) -> OfferReply:
        """Hand a study over; returns how the node stands to it.

        Raises:
            RunError: the vault did not answer.
        """
        self.shapes.note(offer)
        signer = self._signer
        request = vault_pb2.OfferRequest(
            study_run=offer.study_run,
            study_json=offer.study_json,
            peers=[
                vault_pb2.Peer(name=peer.name, key_sha256=peer.key_sha256)
                for peer in offer.peers
                if signer is None or peer.key_sha256 != signer.fingerprint
            ],
            node_name="" if signer is None else signer.name,
            certificate_key=b"" if signer is None else signer.certificate_key,
        )
        try:
            reply = self._stub.Offer(request, timeout=OFFER_TIMEOUT_S)
        except grpc.RpcError:
            raise RunError("Expected the vault to answer an offer, got nothing.", hint="Is it running?") from None
        keys, entry = PublicKeys(reply.exchange_key, reply.signing_key), b""
        if signer is not None and keys.exchange:
            entry = signer.entry(offer, keys)
        return OfferReply(offer.study_run, Status(reply.status), declared_size=reply.declared_size, entry=entry)

    def leg(self, task: LegTask) -> LegReply:
        """Ask a question of a secure sum; a vault that starts up is waited for, one that trains answers beside it.

        Raises:
            RunError: the vault did not answer.
        """
        request = vault_pb2.LegRequest(
            leg=task.leg,
            study_sha256=task.study_sha256,
            study_run=task.study_run,
            round=task.round,
            content=task.content,
            purpose=task.purpose,
        )
        try:
            reply = self._stub.Leg(request, timeout=LEG_TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError:
            raise RunError("Expected the vault to answer a secure sum, got nothing.", hint="Is it running?") from None
        return LegReply(task.leg, task.study_run, task.round, Status(reply.status), reply.content)

    def evaluate(self, task: EvaluationTask) -> EvaluationReply:
        """Ask for an evaluation. A vault that dies on the way is asked again when it is back; it says what it lost.

        One that does not come back in time, or fails in a way that asking again does not mend, has `failed`.
        """
        try:
            return self._evaluate(task)
        except (RunError, PeerError) as error:
            log.error("Evaluation %d failed: %s", task.number, error)
            return self.shapes.failed(task, name="" if self._signer is None else self._signer.name)

    def _evaluate(self, task: EvaluationTask) -> EvaluationReply:
        request = vault_pb2.EvaluateRequest(
            study_sha256=task.study_sha256,
            study_run=task.study_run,
            number=task.number,
            adapter=task.adapter.astype("<f4").tobytes(),
            ledger_height=task.server_copy.height,
            ledger_head=task.server_copy.head,
            ledger_mac=task.server_copy.mac,
            roster=task.roster,
        )
        patience, pause = _Patience(self._patience_s, self._silent_for_s), FIRST_PAUSE_S
        while True:
            asked = time.monotonic()
            try:
                return read_evaluation(self._stub.Evaluate(request, timeout=self._silent_for_s).reply)
            except grpc.RpcError as error:
                if time.monotonic() - asked > SERVED_S:
                    patience.present()
                code = error.code() if isinstance(error, grpc.Call) else None
                if not patience.lasts(code, pause):
                    got = code.name if code else "nothing"
                    raise RunError(
                        f"Expected the vault to answer evaluation {task.number}, got {got}.",
                        hint="Is the vault running? Its log says why it failed.",
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def status(self, *, starts_within_s: float = 0.0) -> vault_pb2.StatusReply:
        """Ask whether a job runs, and where the ledger stands; a vault that is starting up is waited for."""
        reply: vault_pb2.StatusReply = self._stub.Status(
            vault_pb2.StatusRequest(), timeout=max(10.0, starts_within_s), wait_for_ready=starts_within_s > 0
        )
        return reply

    def forget(self, *, timeout_s: float) -> bool:
        """Have the vault forget what the ledger has ended; returns false if no vault runs.

        Raises:
            RunError: it did not answer in time, or cannot forget; it goes on by itself.
        """
        try:
            self._stub.Forget(vault_pb2.ForgetRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE:
                return False
            raise RunError(
                "Expected the vault to forget what was ended, it has not said so yet.",
                hint="It does so when the step ends that it is at, or once it is stopped: fedvault-node stop",
            ) from None
        return True

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _train(
        self, request: vault_pb2.TrainRequest, on_step: Callable[[int], None], patience: "_Patience"
    ) -> TrainReply:
        call = self._stub.Train(request)
        with _given_up_after(self._silent_for_s, call) as note:
            for event in call:
                note()
                patience.present()
                if event.WhichOneof("event") == "reply":
                    return read_reply(event.reply)
                on_step(event.steps_done)
        raise RunError(f"Expected a reply to round {request.round}, the vault hung up.")


class _Patience:
    """How long one question waits for a vault that is down, and for one that is busy with something else.

    A vault is down from when it was heard last, whatever it was doing until then: how long that took may follow its
    records.
    """

    def __init__(self, down_s: float, busy_s: float) -> None:
        self._down_s, self._busy_s = down_s, busy_s
        self._began = self._present_at = time.monotonic()

    def present(self) -> None:
        """The vault is there."""
        self._present_at = time.monotonic()

    def lasts(self, code: grpc.StatusCode | None, pause: float) -> bool:
        """Return true if it is worth asking again after a pause."""
        now = time.monotonic()
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._present_at = now
            return now + pause <= self._began + self._busy_s
        return code is grpc.StatusCode.UNAVAILABLE and now + pause <= self._present_at + self._down_s


@contextmanager
def _given_up_after(silent_for_s: float, call: grpc.Call) -> Iterator[Callable[[], None]]:
    """Cancel a call once nothing was heard of it for so long; yields what to call whenever something is."""
    over, latest = threading.Event(), [time.monotonic()]

    def left_s() -> float:
        return latest[0] + silent_for_s - time.monotonic()

    def watch() -> None:
        while not over.wait(max(0.0, left_s())):
            if left_s() <= 0:
                call.cancel()
                return

    def note() -> None:
        latest[0] = time.monotonic()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield note
    finally:
        over.set()
