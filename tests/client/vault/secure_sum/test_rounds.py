"""Whole secure rounds over real vault pieces and the real server's session."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.privacy.releases import SharedGaussian
from shared.protocol.messages import Status
from shared.secure_sum.messages import MaskedVector
from tests.support.sum_nodes import LENGTH, NAMES, Federation, sum_study

THREE = NAMES[:3]


def summed(names: tuple[str, ...]) -> list[int]:
    return [sum(10 ** NAMES.index(name) * k for name in names) for k in range(LENGTH)]


@pytest.mark.parametrize("mode", ["masked", "shared"])
def test_the_server_opens_the_sum_of_all(tmp_path: Path, mode: str) -> None:
    federation = Federation(tmp_path, sum_study(mode))
    for number in (1, 2):
        session = federation.server.session(number)
        federation.server.ask(session, number)
        assert federation.server.finish(session, number) == summed(NAMES)
    rows = ["register", "approve", "roster", *["reserve", "commit"], "survivors", *["reserve", "commit"], "survivors"]
    assert all(node.row_kinds() == rows for node in federation.nodes.values())


@pytest.mark.parametrize("missing", NAMES)
def test_the_sum_opens_without_a_node_that_sent_nothing(tmp_path: Path, missing: str) -> None:
    federation, left = Federation(tmp_path), tuple(name for name in NAMES if name != missing)
    session = federation.server.session()
    federation.server.ask(session, names=left)
    assert federation.server.finish(session, names=left) == summed(left)


def test_noise_that_is_shared_is_charged_with_the_numbers_of_the_roster(tmp_path: Path) -> None:
    federation = Federation(tmp_path, sum_study("shared"))
    federation.server.ask(federation.server.session())
    for node in federation.nodes.values():
        (charged,) = node.trainer.charged
        assert isinstance(charged, SharedGaussian) and (charged.nodes, charged.threshold, charged.colluders) == (
            4,
            3,
            1,
        )
        with node.ledger() as ledger:
            assert ledger.state.run("r-1").per_round == charged


@pytest.mark.guarantee(
    "a summand leaves behind a mask of its own round, or not at all: what fails is answered with zeros."
)
def test_one_reply_decodes_to_no_update_and_looks_the_same_whatever_was_trained(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    replies = [node.train(federation.server.task()) for node in federation.nodes.values()]
    values = np.array([MaskedVector.from_bytes(reply.masked).values for reply in replies])
    assert all(len(reply.update) == 0 for reply in replies)
    # honest sums lie within 2^20 of zero; a uniform number does so with probability 2^-43
    assert (np.abs(values.view(np.int64)) > 2**20).all()
    assert len(np.unique(values)) == values.size
    for left_out in range(len(NAMES)):
        part = np.delete(values, left_out, axis=0).sum(axis=0, dtype=np.uint64).view(np.int64)
        assert (np.abs(part) > 2**20).all(), "a sum of fewer is as closed"
    assert (np.abs(values.sum(axis=0, dtype=np.uint64).view(np.int64)) > 2**20).all(), "own masks close the sum of all"


@pytest.mark.guarantee("what failed or was lost has the length of what is added to the sum.")
def test_a_failed_round_and_a_lost_one_are_as_long_and_are_never_signed(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    server, node = federation.server, federation.nodes["north"]
    whole = federation.nodes["east"].train(server.task())
    node.trainer.fails = True
    failed = node.train(server.task())
    with node.ledger() as ledger:
        ledger.resume("r-1", [1])
        ledger.reserve("r-1", 2)  # and a crash
    lost = node.train(server.task(2))
    assert (failed.status, lost.status) == (Status.FAILED, Status.LOST)
    assert {len(whole.masked) - len("east"), len(failed.masked) - 5, len(lost.masked) - 5} == {len(whole.masked) - 4}
    assert not any(failed.masked) and not any(lost.masked) and len(failed.update) == 0
    for number in (1, 2, 3):
        assert node.leg("survivors", b"", number).status is Status.REFUSED_SURVIVORS
        assert node.leg("opening", b"", number).status is Status.REFUSED_SURVIVORS


@pytest.mark.parametrize("error", [MemoryError(), OSError("disk full"), ValueError("patient Anna")])
def test_whatever_goes_wrong_with_the_mask_one_code_leaves_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    federation = Federation(tmp_path)
    task, node = federation.server.task(), federation.nodes["north"]

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("client.vault.secure_sum.hiding.mask_vector", broken)
    reply = node.train(task)
    assert reply.status is Status.FAILED and not any(reply.masked) and len(reply.update) == 0
    monkeypatch.undo()
    assert node.train(task).status is Status.FAILED, "one attempt"


def test_the_same_bytes_are_sent_again_whatever_the_server_sends(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    server, node = federation.server, federation.nodes["south"]
    first, other = node.train(server.task()), server.task(adapter=np.ones(LENGTH, np.float32))
    assert node.train(server.task()).masked == first.masked
    assert node.train(other).masked == first.masked and node.train(other).base_sha256 == first.base_sha256
    assert node.train(replace(server.task(), roster=b"other")).masked == first.masked
    assert len(node.trainer.charged) == 1


def test_a_question_that_is_asked_again_gets_the_same_bytes(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    server, node, session = federation.server, federation.nodes["west"], federation.server.session()
    server.ask(session)
    session.fix()
    question = session.survivors_question()
    assert node.leg("survivors", question) == node.leg("survivors", question)
    for name in session.unsigned:
        session.add_signature(name, federation.nodes[name].leg("survivors", question).content)
    opening = session.opening_question("west")
    assert node.leg("opening", opening) == node.leg("opening", opening)
    assert node.row_kinds().count("survivors") == 1


def test_the_length_of_a_failure_is_known_before_any_record_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(tmp_path)
    server, node = federation.server, federation.nodes["north"]
    expected, summand = len(federation.nodes["south"].train(server.task()).masked), node.trainer.summand

    def unreadable(*asked: Any) -> Any:
        def broken(_run: str) -> None:
            raise PermissionError

        monkeypatch.setattr(node.files, "identity", broken)
        return summand(*asked)

    monkeypatch.setattr(node.trainer, "summand", unreadable)
    reply = node.train(server.task())
    assert reply.status is Status.FAILED and len(reply.masked) == expected
    with node.ledger() as ledger:
        assert ledger.state.run("r-1").failed == {1}
