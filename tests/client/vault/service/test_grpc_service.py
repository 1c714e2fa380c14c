"""The vault behind its socket: private, one job at a time, and honest about what a crash took."""

import multiprocessing
import os
import signal
import socket as socket_module
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from client.link.vault_client import VaultClient
from client.vault.ledger.approval import approve
from client.vault.ledger.ledger import Ledger
from client.vault.service.charged_round import ChargedRound
from client.vault.service.grpc_service import Steps, VaultService, serving
from client.vault.training.randomness import OsRandomness
from client.vault.training.round_trainer import RoundTrainer
from client.vault_api.messages import write_reply
from shared.adapted_model.model import build, layout_of
from shared.errors import RunError
from shared.protocol.flower_records import encode_reply
from shared.protocol.messages import (
    NO_MAC,
    LedgerPosition,
    LegReply,
    LegTask,
    OfferReply,
    Status,
    StudyOffer,
    TrainTask,
    without_content,
)
from shared.records.ragged import Records as Dataset
from shared.study.declaration import Study
from tests.support.ledgers import register, rows_of

Studies, Records = Callable[..., Study], Callable[..., Dataset]


class OneRun:
    """Answers for one run of one dataset."""

    def __init__(self, vault: ChargedRound, ledger: Ledger) -> None:
        self._ledger, self.train = ledger, vault.train

    def offer(self, offer: StudyOffer) -> OfferReply:
        return OfferReply(offer.study_run, Status.AWAITING_APPROVAL)

    def leg(self, task: LegTask) -> LegReply:
        return without_content(task, Status.REFUSED_STUDY)

    def measure(self, task: TrainTask, make_way: Callable[[], None]) -> None:
        pass

    def ledger_position(self) -> LedgerPosition:
        return LedgerPosition(self._ledger.height, self._ledger.head)


def serve(stack: ExitStack, folder: Path, study: Study, records: Dataset, step_s: float = 0.0) -> Ledger:
    """Everything a vault process does, until the stack unwinds."""
    ledger = stack.enter_context(Ledger(folder / "ledger.db", second_copy=folder / "second" / "head.json"))
    if not ledger.height:
        register(ledger, "data", epsilon=3.0, delta=1e-5)
        approve(ledger, study, dataset="data", run="run")
    steps = Steps()

    def slow(done: int) -> None:
        time.sleep(step_s)
        steps(done)

    vault = RoundTrainer(
        study, build(study), records, declared_size=60, randomness=lambda _round: OsRandomness(), on_step=slow
    )
    service = VaultService(OneRun(ChargedRound(vault, lambda: nullcontext(ledger), dataset="data"), ledger), steps)
    stack.enter_context(serving(service, folder / "socket" / "vault.sock"))
    return ledger


def test_a_round_that_is_asked_for_ends_the_measuring_of_the_last_one(
    tmp_path: Path, study: Study, make_records: Records, client: VaultClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_way, over = threading.Event(), threading.Event()

    def without_end(_self: OneRun, _task: TrainTask, make_way: Callable[[], None]) -> None:
        try:
            while not over.is_set():
                make_way()
                time.sleep(0.01)
        except RunError:
            made_way.set()
            raise

    monkeypatch.setattr(OneRun, "measure", without_end)
    with ExitStack() as stack:
        serve(stack, tmp_path, study, make_records(60))
        assert client.train(task(study)).status is Status.TRAINED
        assert not made_way.is_set()
        assert client.train(task(study, 2)).status is Status.TRAINED
        assert made_way.is_set()
        assert client.train(task(study, 2)).status is Status.TRAINED, "the last one is measured now, and makes way too"
        over.set()


def in_process(folder: Path, study: Study, records: Dataset, step_s: float) -> None:
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    with ExitStack() as stack:
        serve(stack, folder, study, records, step_s)
        threading.Event().wait()


@pytest.fixture
def study(make_study: Studies, request: pytest.FixtureRequest) -> Study:
    """As float32, or in the encoding that a test asks for."""
    return make_study(adapter={"layers": "last:1"}, federation={"wire": getattr(request, "param", "float32")})


@pytest.fixture
def client(tmp_path: Path) -> Iterator[VaultClient]:
    opened = VaultClient(tmp_path / "socket" / "vault.sock", patience_s=90.0)
    yield opened
    opened.close()


def task(study: Study, number: int = 1) -> TrainTask:
    return TrainTask(study.sha256, "run", number, np.zeros(layout_of(study).length, np.float32))


@pytest.mark.parametrize("study", ["bfloat16", "int8"], indirect=True)
def test_a_round_over_the_socket_keeps_its_encoding(
    tmp_path: Path, study: Study, make_records: Records, client: VaultClient
) -> None:
    short = replace(task(study), wire=study.federation.wire)
    with ExitStack() as stack:
        serve(stack, tmp_path, study, make_records(60))
        first = client.train(short)
        assert first.status is Status.TRAINED and first.encoding.wire == study.federation.wire
        assert encode_reply(client.train(short))["reply"].deflate() == encode_reply(first)["reply"].deflate()


def test_a_round_over_the_socket_streams_its_steps_and_is_resent(
    tmp_path: Path, study: Study, make_records: Records, client: VaultClient
) -> None:
    with ExitStack() as stack:
        ledger = serve(stack, tmp_path, study, make_records(60))
        steps: list[int] = []
        first = client.train(task(study), on_step=steps.append)
        assert first.status is Status.TRAINED and steps == [1, 2, 3]
        assert write_reply(client.train(task(study))) == write_reply(first)
        assert (first.ledger.height, first.ledger.head) == (3, rows_of(ledger)[2]["hash"])
        assert client.offer(StudyOffer("run", study.canonical_json())).status is Status.AWAITING_APPROVAL
        status = client.status()
        assert (status.study_run, status.round, status.steps_done) == ("run", 1, 0), "the last one was sent again"
        assert (status.busy, status.ledger_height, status.ledger_head) == (False, ledger.height, ledger.head)
        assert (
            client.train(replace(task(study, 2), server_copy=LedgerPosition(ledger.height, "0" * 64))).status
            is Status.REFUSED_LEDGER
        )
        assert (
            client.train(replace(task(study, 2), server_copy=LedgerPosition(ledger.height, ledger.head))).status
            is Status.TRAINED
        )
        assert first.ledger.mac != NO_MAC
        assert client.train(replace(task(study, 3), server_copy=first.ledger)).status is Status.TRAINED
        forged = replace(first.ledger, mac="0" * 63 + "1")
        assert client.train(replace(task(study, 1), server_copy=forged)).status is Status.REFUSED_LEDGER


@pytest.mark.guarantee("the vault listens on a UNIX socket with owner-only permissions and on no network address.")
def test_the_vault_opens_no_network_socket(
    tmp_path: Path, study: Study, make_records: Records, client: VaultClient
) -> None:
    with started(tmp_path, study, make_records(60)) as process:
        assert client.train(task(study)).status is Status.TRAINED
        assert process.pid is not None and network_sockets(process.pid) == []
        socket = tmp_path / "socket" / "vault.sock"
        assert socket.stat().st_mode & 0o777 == 0o600 and socket.parent.stat().st_mode & 0o777 == 0o700


def test_looking_for_network_sockets_finds_one() -> None:
    with socket_module.create_server(("127.0.0.1", 0)):
        assert len(network_sockets(os.getpid())) >= 1


def network_sockets(pid: int) -> list[str]:
    """Sockets of a process that are in the kernel's tables of TCP and UDP."""
    own = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile, as the one that lists them
            own.add(str(path.readlink()))
    tables = [Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6", "udp", "udp6")]
    return [line for table in tables for line in table if f"socket:[{line.split()[9]}]" in own]


def test_a_second_job_waits_for_the_first(
    tmp_path: Path, study: Study, make_records: Records, client: VaultClient, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        serve(stack, tmp_path, study, make_records(60), step_s=0.3)
        replies: list[Any] = []
        first = threading.Thread(target=lambda: replies.append(client.train(task(study, 1))))
        first.start()
        wait_until(lambda: client.status().busy)
        hasty = VaultClient(tmp_path / "socket" / "vault.sock", silent_for_s=0.1)
        assert hasty.train(task(study, 2)).status is Status.FAILED and "RESOURCE_EXHAUSTED" in caplog.text
        hasty.close()
        # how long the vault is busy may follow its records: the patience with one that is away must not tell
        impatient = VaultClient(tmp_path / "socket" / "vault.sock", patience_s=0.0)
        assert impatient.train(task(study, 2)).status is Status.TRAINED
        impatient.close()
        first.join()
        assert replies[0].status is Status.TRAINED


def test_a_job_whose_caller_goes_away_is_finished_and_its_bytes_are_there_for_the_next_one(
    tmp_path: Path, study: Study, make_records: Records, client: VaultClient
) -> None:
    with ExitStack() as stack:
        ledger = serve(stack, tmp_path, study, make_records(60), step_s=0.3)
        leaving = VaultClient(tmp_path / "socket" / "vault.sock", patience_s=0.0)

        def leave(_done: int) -> None:
            leaving.close()

        with suppress(ValueError, grpc.RpcError):
            assert leaving.train(task(study), on_step=leave).status is Status.FAILED, "nobody reads it any more"
        assert client.train(task(study)).status is Status.TRAINED
        attempts = ledger.state.runs[task(study).study_run].attempts
        assert list(attempts) == [1] and attempts[1] is not None


@pytest.mark.integration
def test_a_vault_that_is_killed_in_training_comes_back_and_says_what_was_lost(
    tmp_path: Path, study: Study, make_records: Records, client: VaultClient
) -> None:
    heard: list[int] = []
    with ExitStack() as stack:
        process = stack.enter_context(started(tmp_path, study, make_records(60), step_s=1.0))

        def kill(done: int) -> None:
            heard.append(done)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            stack.enter_context(started(tmp_path, study, make_records(60)))

        assert client.train(task(study), on_step=kill).status is Status.LOST
        assert heard[0] == 1
        assert client.train(task(study, 2)).status is Status.TRAINED


class started:  # noqa: N801 - reads as a sentence
    """A vault in a process of its own."""

    def __init__(self, folder: Path, study: Study, records: Dataset, step_s: float = 0.0) -> None:
        processes = multiprocessing.get_context("forkserver")
        self._process = processes.Process(target=in_process, args=(folder, study, records, step_s), daemon=True)

    def __enter__(self) -> Any:
        self._process.start()
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


def test_a_vault_that_is_not_there_is_said(tmp_path: Path, study: Study, caplog: pytest.LogCaptureFixture) -> None:
    alone = VaultClient(tmp_path / "nothing.sock", patience_s=0.0)
    assert alone.train(task(study)).status is Status.FAILED
    assert "got UNAVAILABLE. Is the vault running" in caplog.text
    alone.close()


def test_a_vault_that_is_starting_up_is_waited_for_where_somebody_asks_whether_it_is_there(
    tmp_path: Path, study: Study, make_records: Records, client: VaultClient
) -> None:
    with pytest.raises(grpc.RpcError):
        client.status()
    heights: list[int] = []
    asks = threading.Thread(target=lambda: heights.append(client.status(starts_within_s=30.0).ledger_height))
    asks.start()
    time.sleep(0.3)
    with ExitStack() as stack:
        ledger = serve(stack, tmp_path, study, make_records(8))
        asks.join()
        assert heights == [ledger.height]


def test_the_link_never_imports_torch() -> None:
    import subprocess
    import sys

    code = "import sys, client.link.vault_client; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def wait_until(true: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
