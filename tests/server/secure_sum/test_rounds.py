"""Rounds whose updates only open as a sum: nodes drop out at any point, lie in any answer, and the server is killed."""

import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.aggregation.mean import UniformMean
from server.rounds import participants
from server.rounds.checkpoints import Checkpoints
from server.secure_sum import opening, roster
from server.secure_sum.files import SumFiles
from shared.errors import SettingsError
from shared.protocol.messages import Status
from tests.support.killed_between import Killed, killed_after
from tests.support.sum_server import LENGTH, NodesGrid, Server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(participants, "POLL_S", 0.001)
    monkeypatch.setattr(opening, "SHORTEST_POLL_S", 0.0005)
    monkeypatch.setattr(opening, "LONGEST_POLL_S", 0.001)


def names(server: Server) -> list[str]:
    return [node.name for node in server.nodes]


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_the_opened_sum_is_the_plain_sum_and_makes_the_same_bytes(tmp_path: Path, nodes: int) -> None:
    server, plain = Server(tmp_path, nodes), UniformMean(LENGTH)
    state = server.drive()
    for node in server.nodes:
        plain.add(node.update)
    assert state.adapter.tobytes() == plain.result(np.zeros(LENGTH, np.float32)).tobytes()
    np.testing.assert_array_equal(server.totals[1], server.expected(*names(server)))
    assert server.kinds() == ["fixed", "signed", "opened"] and state.records[0]["outcome"] == "aggregated"


@pytest.mark.parametrize("nodes", [3, 4])
def test_the_sum_opens_exactly_while_enough_are_left_whoever_drops_out_and_when(tmp_path: Path, nodes: int) -> None:
    # every number of nodes that stay, drop out before the survivors are fixed, and after; the rules know no names
    fates = itertools.combinations_with_replacement(["before", "stays", "after"], nodes)
    for case, fate in enumerate(fates):
        server = Server(tmp_path / str(case), nodes)
        server.fixed_for_s = 10
        for node, what in zip(server.nodes, fate, strict=True):
            node.fails = Status.FAILED if what == "before" else None
            node.silent |= {"survivors", "opening"} if what == "after" else set()
        state, before, after = server.drive(), fate.count("before"), fate.count("after")
        sent = [node.name for node in server.nodes if node.fails is None]
        opens = len(sent) >= 3 and (not after if before else nodes - after >= 3)
        assert state.records[0]["outcome"] == ("aggregated" if opens else "lost"), fate
        if opens:
            np.testing.assert_array_equal(server.totals[1], server.expected(*sent))
        else:
            assert not server.totals and not state.adapter.any()


WRITES: list[tuple[Any, tuple[str, ...]]] = [
    (roster, ("write_atomically",)),
    (SumFiles, ("keep",)),
    (Checkpoints, ("save", "keep_asked")),
    (NodesGrid, ("push_messages",)),
]


@pytest.mark.guarantee("a round has one set of survivors, however often the server is killed.")
@pytest.mark.parametrize("absent", [None, 3], ids=["all there", "one missing"])
def test_a_kill_between_any_two_writes_or_messages_changes_no_survivor_and_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: int | None
) -> None:
    adapters = set[bytes]()
    for writes in itertools.count():
        server = Server(tmp_path / str(writes), 4, rounds=2)
        if absent is not None:
            server.nodes[absent].fails = Status.LOST
        with killed_after(writes, WRITES, monkeypatch) as killed:
            with suppress(Killed):
                server.drive()
            was_killed = killed()
        state = server.drive()
        sent = [node.name for node in server.nodes if node.fails is None]
        assert [record["outcome"] for record in state.records] == ["aggregated"] * 2
        for number in server.totals:
            np.testing.assert_array_equal(server.totals[number], server.expected(*sent, number=number))
        sets = {body["round"]: set() for kind, body in server.events if kind == "fixed"}
        for body in (body for kind, body in server.events if kind == "fixed"):
            sets[body["round"]].add(tuple(body["survivors"]))
        assert all(len(once) == 1 for once in sets.values())
        adapters.add(state.adapter.tobytes())
        if not was_killed:
            break
    assert writes > 12 and len(adapters) == 1


@pytest.mark.guarantee("a round's survivors are on the disk before the first node is asked to sign them.")
def test_a_survivor_is_asked_to_sign_only_what_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path, 3)
    with killed_after(0, [(SumFiles, ("keep",))], monkeypatch), pytest.raises(Killed):
        server.drive()
    assert not any("survivors" in node.asked for node in server.nodes)
    assert server.drive().records[0]["outcome"] == "aggregated"


def lying(server: Server, leg: str, change: Any) -> str:
    liar = server.nodes[1]
    liar.tamper = lambda kind, content: change(content) if kind == leg else content
    return liar.name


def flipped(at: int) -> Any:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[at] ^= 1
        return bytes(changed)

    return flip


def test_a_share_that_lies_is_named_in_the_event_and_the_log_and_the_sum_still_opens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(tmp_path, 4)
    liar = lying(server, "opening", flipped(-10))
    server.drive()
    np.testing.assert_array_equal(server.totals[1], server.expected(*names(server)))
    assert server.body("opened")["blamed"] == [{"code": "share", "dealer": "clinic-d", "holder": liar}]
    assert liar in caplog.text


@pytest.mark.parametrize(
    ("leg", "change", "code"),
    [
        ("survivors", flipped(-1), "signature"),
        ("survivors", lambda _content: b"", "malformed"),
        ("opening", lambda content: content[:-1], "malformed"),
        ("opening", flipped(20), "other_context"),
    ],
)
def test_whoever_answers_a_leg_wrongly_is_named_and_the_others_open_the_sum(
    tmp_path: Path, leg: str, change: Any, code: str
) -> None:
    server = Server(tmp_path, 4)
    liar = lying(server, leg, change)
    server.drive()
    np.testing.assert_array_equal(server.totals[1], server.expected(*names(server)))
    assert server.body("blamed") == {"round": 1, "name": liar, "code": code}


def test_a_signature_on_another_set_is_no_signature(tmp_path: Path) -> None:
    first, server = Server(tmp_path / "first", 4), Server(tmp_path / "second", 4)
    first.drive()
    old = first.nodes[1]
    # of the same node, on the set of another run of the protocol
    server.nodes[1].tamper = lambda kind, content: content[:-64] + old.entry()[:64] if kind == "survivors" else content
    server.drive()
    assert server.body("blamed")["code"] == "signature" and "opened" in server.kinds()


def test_a_dealer_of_false_shares_loses_the_round_and_is_named(tmp_path: Path) -> None:
    server = Server(tmp_path, 4)
    node = server.nodes[0]
    # the commitment stands after the head, the context and the name
    at = 6 + (4 + 32) + (4 + len(node.name)) + 4
    lying(server, "masked", flipped(at))
    state = server.drive()
    assert state.records[0]["outcome"] == "lost" and not state.adapter.any()
    assert any(node.name in str(server.body(kind)) for kind in ("lost", "blamed") if kind in server.kinds())


def test_a_late_vector_is_never_used(tmp_path: Path) -> None:
    server = Server(tmp_path, 4)
    late = server.nodes[2]
    late.silent = {"train"}
    state = server.drive()
    assert state.records[0]["missing"] == [late.number] and server.body("fixed")["missing"] == [late.name]
    np.testing.assert_array_equal(server.totals[1], server.expected("clinic-a", "clinic-b", "clinic-d"))
    assert "survivors" not in late.asked and "opening" not in late.asked


def test_a_sender_that_is_away_is_left_out_where_it_alone_knows_a_mask(tmp_path: Path) -> None:
    # with nobody missing any of them can open the sum, and it stays in
    for missing in (True, False):
        server = Server(tmp_path / str(missing), 6, threshold=4)
        server.nodes[0].fails, away = Status.FAILED if missing else None, server.nodes[2]

        def look(away: Any = away) -> None:
            away.present = "train" not in away.asked

        server.grid.after = look
        state = server.drive()
        assert state.records[0]["outcome"] == "aggregated"
        assert (away.name in server.body("fixed")["survivors"]) is not missing


def test_as_many_as_the_quorum_stay_in_the_sum_also_if_one_of_them_is_away(tmp_path: Path) -> None:
    server = Server(tmp_path, 6, threshold=4, quorum=5)
    server.nodes[0].fails, away = Status.FAILED, server.nodes[2]

    def look() -> None:
        away.present = "train" not in away.asked

    server.grid.after = look
    server.drive()
    assert len(server.body("fixed")["survivors"]) == 5, "nodes sign no set of fewer than the study begins with"


def test_a_survivor_that_was_away_is_asked_as_soon_as_it_is_back(tmp_path: Path) -> None:
    server = Server(tmp_path, 4)
    server.nodes[0].fails, away = Status.FAILED, server.nodes[2]
    looks = itertools.count()

    def look() -> None:
        if "survivors" in server.nodes[1].asked:
            away.present = next(looks) > 5

    server.grid.after = look
    server.drive()
    assert "opened" in server.kinds() and any(away.name in reason for reason in server.waits)
    assert server.waits[-1] == ""


def test_a_round_is_lost_when_its_time_is_over_also_for_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path, 3)
    silent = server.nodes[0]
    silent.silent = {"opening"}
    with killed_after(1, [(Checkpoints, ("save",))], monkeypatch), pytest.raises(Killed):
        server.fixed_for_s = 30
        server.drive()
    first = server.kinds().count("lost")
    state = server.drive()
    assert first == 1 and server.kinds().count("lost") == 2 and state.records[0]["outcome"] == "lost"
    assert server.body("lost")["reason"] == f"its time is over without an answer of {silent.name}"


def test_a_server_that_was_off_for_longer_than_a_round_lasts_asks_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path, 3)
    with killed_after(1, [(Checkpoints, ("save",))], monkeypatch), pytest.raises(Killed):
        server.drive()
    server.now = itertools.count(2e9).__next__
    assert server.drive().records[0]["outcome"] == "aggregated"


@pytest.mark.parametrize("code", [Status.REFUSED_SURVIVORS, Status.OUT_OF_SECURE_SUM])
def test_a_round_is_lost_at_once_when_nobody_else_can_open_it(tmp_path: Path, code: Status) -> None:
    server = Server(tmp_path, 3)
    server.nodes[0].code = {"survivors": code}
    assert server.drive().records[0]["outcome"] == "lost"
    assert code.name.lower() in server.body("lost")["reason"]


def test_a_code_that_may_pass_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.secure_sum.legs.FIRST_PAUSE_S", 0.001)
    server = Server(tmp_path, 3)
    node = server.nodes[0]
    node.code = {"survivors": Status.REFUSED_LEDGER}

    def look() -> None:
        if node.asked.count("survivors") > 1:
            node.code = {}

    server.grid.after = look
    server.drive()
    assert "opened" in server.kinds() and node.asked.count("survivors") > 1


def test_too_few_vectors_fix_no_set(tmp_path: Path) -> None:
    server = Server(tmp_path, 4)
    for node in server.nodes[:2]:
        node.fails = Status.FAILED
    assert server.drive().records[0]["outcome"] == "lost"
    assert "fixed" not in server.kinds() and not any("survivors" in node.asked for node in server.nodes)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", flipped(200)])
def test_a_damaged_file_of_a_fixed_round_leads_to_the_same_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    server = Server(tmp_path, 3)
    with killed_after(1, [(Checkpoints, ("save",))], monkeypatch), pytest.raises(Killed):
        server.drive()
    (file,) = (tmp_path / "sum").glob("round-*")
    file.write_bytes(damage(file.read_bytes()))
    assert server.drive().records[0]["outcome"] == "aggregated"
    np.testing.assert_array_equal(server.totals[1], server.expected(*names(server)))


@pytest.mark.parametrize("status", [Status.REFUSED_ROSTER, Status.OUT_OF_SECURE_SUM])
def test_a_run_that_can_never_have_enough_again_has_failed_and_says_who_is_gone(tmp_path: Path, status: Status) -> None:
    server = Server(tmp_path, 4, rounds=3)
    for node in server.nodes[:2]:
        node.fails = status
    with pytest.raises(SettingsError, match=rf"at least 3 of the 4 .* got 2: clinic-a \({status.name.lower()}\)"):
        server.drive()


def test_a_node_that_refused_the_roster_is_asked_again_once_its_operator_may_have_pinned(tmp_path: Path) -> None:
    server = Server(tmp_path, 4, rounds=6)
    refuses = server.nodes[0]
    refuses.fails = Status.REFUSED_ROSTER

    def look() -> None:
        refuses.fails = None if refuses.asked.count("train") == 2 else refuses.fails

    server.grid.after = look
    state = server.drive()
    taken = [refuses.number in record["accepted"] for record in state.records]
    assert [record["outcome"] for record in state.records] == ["aggregated"] * 6
    assert taken[0] is False and taken[-1] and server.roster.gone == {}
    assert refuses.asked.count("train") < 6, "it is not asked in each round that it refuses"


def test_who_refuses_the_roster_is_not_asked_where_its_refusal_would_lose_the_round(tmp_path: Path) -> None:
    server = Server(tmp_path, 4, rounds=3)
    refuses, away = server.nodes[0], server.nodes[1]
    refuses.fails = Status.REFUSED_ROSTER

    def look() -> None:
        # whoever is away is back when only its return makes the quorum
        away.present = not server.roster.gone or len(server.waits) > 0

    server.roster_clock = itertools.count(0.0, 1e6).__next__
    server.grid.after = look
    state = server.drive()
    assert all(record["outcome"] == "aggregated" for record in state.records)


def test_a_survivor_that_is_revoked_is_not_waited_for(tmp_path: Path) -> None:
    server = Server(tmp_path, 3)
    gone = server.nodes[2]

    def look() -> None:
        if "survivors" in server.nodes[0].asked:
            gone.present = False
            server.revoked.add(gone.name)

    gone.silent = {"survivors"}
    server.grid.after = look
    assert server.drive().records[0]["outcome"] == "lost"
    assert server.body("lost")["reason"] == f"fewer than 3 survivors can sign: {gone.name} (revoked)"


def test_senders_that_are_revoked_before_the_survivors_are_fixed_are_not_waited_for(tmp_path: Path) -> None:
    server = Server(tmp_path, 3)

    def look() -> None:
        if all("train" in node.asked for node in server.nodes):
            server.nodes[1].present = False
        if any(server.waits):
            server.revoked.add(server.nodes[1].name)

    server.grid.after = look
    assert server.drive().records[0]["outcome"] == "lost"
    assert "fixed" not in server.kinds() and "came back" in server.body("lost")["reason"]


def test_a_node_that_cannot_read_a_question_is_not_asked_it_again(tmp_path: Path) -> None:
    server = Server(tmp_path, 4)
    node = server.nodes[0]
    node.names_no_round, node.code = True, {"survivors": Status.REFUSED_VERSION}
    server.drive()
    assert "opened" in server.kinds() and "blamed" not in server.kinds() and node.asked.count("survivors") == 1


def test_a_vector_that_the_disk_gives_back_otherwise_stays_in_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SumFiles, "vector", lambda *_: b"other bytes")
    server = Server(tmp_path, 6, threshold=4)
    server.nodes[0].fails, away = Status.FAILED, server.nodes[2]

    def look() -> None:
        away.present = "train" not in away.asked or "survivors" in server.nodes[1].asked

    server.grid.after = look
    server.drive()
    assert away.name in server.body("fixed")["survivors"] and "opened" in server.kinds()
    np.testing.assert_array_equal(server.totals[1], server.expected(*server.body("fixed")["survivors"]))
