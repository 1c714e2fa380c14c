"""Questions are handed out until they are safe, replies are here in whole or not at all, and nothing stays."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from server.mailbox.mailbox import MOST_HANDED, KeptQuestion, Mailbox, NotWantedError

RUN, NODE, OTHER, NOW = 5, 2**63 + 7, 9, 1000.0


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    made = Mailbox(tmp_path / "mailbox.db")
    yield made
    made.close()


def question(name: str, node: int = NODE, *, run: int = RUN, expires: float = NOW + 60) -> KeptQuestion:
    return KeptQuestion(name, run, node, expires, f"message {name}".encode(), b"tree", ("adapter", f"root-{name}"))


def ask(mailbox: Mailbox, *questions: KeptQuestion, now: float = NOW) -> None:
    contents = {name: f"content of {name}".encode() for one in questions for name in one.objects}
    mailbox.ask(questions, contents, now=now)


def answer(mailbox: Mailbox, name: str, node: int = NODE, reply: str = "reply") -> None:
    for part in mailbox.announce(node, name, reply, reply.encode(), ["a", "b"], now=NOW):
        assert mailbox.put(node, name, part, f"{part} of {reply}".encode(), now=NOW)


def handed(mailbox: Mailbox, node: int = NODE, now: float = NOW) -> str | None:
    found = mailbox.hand_out(node, now=now)
    return None if found is None else found[0].decode().removeprefix("message ")


def test_a_question_is_for_its_node_alone_and_what_several_share_is_kept_once(mailbox: Mailbox) -> None:
    ask(mailbox, question("q1"), question("q2", OTHER))
    assert (handed(mailbox), handed(mailbox, OTHER), handed(mailbox, 1)) == ("q1", "q2", None)
    assert mailbox.question_object("adapter") == b"content of adapter" and mailbox.question_object("none") is None
    assert rows(mailbox, "object") == 3
    assert mailbox.open_questions(RUN, now=NOW) == {"q1": NODE, "q2": OTHER}


def test_a_question_is_handed_out_again_until_it_is_safe_behind_all_others_and_a_few_times(mailbox: Mailbox) -> None:
    ask(mailbox, question("q1"), question("q2"))
    assert [handed(mailbox) for _ in range(4)] == ["q1", "q2", "q1", "q2"]
    mailbox.confirm(OTHER, "q2")
    assert [handed(mailbox) for _ in range(MOST_HANDED)] == ["q1", "q2", None], "nobody confirms another's"
    ask(mailbox, question("q3"))
    mailbox.confirm(NODE, "q3")
    assert handed(mailbox) is None


def test_half_a_reply_is_none_and_the_rest_of_it_is_asked_for(mailbox: Mailbox) -> None:
    ask(mailbox, question("q1"))
    assert mailbox.announce(NODE, "q1", "r", b"r", ["a", "b"], now=NOW) == ["a", "b"]
    assert not mailbox.put(NODE, "q1", "c", b"", now=NOW), "none of it"
    assert mailbox.put(NODE, "q1", "a", b"1", now=NOW) and mailbox.replies(RUN) == []
    assert mailbox.announce(NODE, "q1", "r", b"r", ["a", "b"], now=NOW) == ["b"]
    assert mailbox.put(NODE, "q1", "b", b"22", now=NOW)
    (reply,) = mailbox.replies(RUN)
    assert (reply.question, reply.message, reply.sizes) == ("q1", b"r", {"a": 1, "b": 2})
    assert mailbox.contents("q1") == {"a": b"1", "b": b"22"} and mailbox.replies(RUN + 1) == []


def test_the_first_whole_reply_counts_and_its_question_is_handed_out_no_more(mailbox: Mailbox) -> None:
    ask(mailbox, question("q1"))
    mailbox.announce(NODE, "q1", "given up", b"", ["a", "b", "c"], now=NOW)
    answer(mailbox, "q1", reply="first")
    assert mailbox.announce(NODE, "q1", "second", b"", ["a"], now=NOW) == []
    assert mailbox.put(NODE, "q1", "a", b"other", now=NOW), "sent again"
    assert mailbox.contents("q1") == {"a": b"a of first", "b": b"b of first"} and handed(mailbox) is None


@pytest.mark.parametrize("why", ["another node's", "unknown", "expired", "done with", "its run is over"])
def test_an_answer_that_nobody_waits_for_is_not_wanted(mailbox: Mailbox, why: str) -> None:
    ask(mailbox, question("q1", expires=NOW if why == "expired" else NOW + 60))
    if why == "done with":
        mailbox.drop(["q1"])
    elif why == "its run is over":
        mailbox.end()
    node, name = OTHER if why == "another node's" else NODE, "q2" if why == "unknown" else "q1"
    with pytest.raises(NotWantedError):
        mailbox.announce(node, name, "r", b"", ["a"], now=NOW)
    with pytest.raises(NotWantedError):
        mailbox.put(node, name, "a", b"", now=NOW)


def test_nothing_stays_for_ever(mailbox: Mailbox) -> None:
    ask(mailbox, question("old", expires=NOW + 1), question("read"), question("other run", run=6))
    answer(mailbox, "old")
    answer(mailbox, "read")
    mailbox.drop(["read"])
    ask(mailbox, question("new"), now=NOW + 2)
    assert mailbox.open_questions(RUN, now=NOW + 2) == {"new": NODE} and rows(mailbox, "part") == 0
    mailbox.begin(RUN)
    assert mailbox.open_questions(6, now=NOW) == {} and rows(mailbox, "object") == 2
    mailbox.end()
    assert {name: rows(mailbox, name) for name in ("question", "object", "question_object", "reply")} == dict.fromkeys(
        ("question", "object", "question_object", "reply"), 0
    )


def test_what_is_sent_again_is_there_once(mailbox: Mailbox) -> None:
    for _ in range(2):
        ask(mailbox, question("q1"))
    assert [handed(mailbox), rows(mailbox, "question"), rows(mailbox, "object")] == ["q1", 1, 2]


def rows(mailbox: Mailbox, table: str) -> int:
    with mailbox._database.reading() as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - of this file


def _answer_and_die(path: Path) -> None:
    answer(Mailbox(path), "q1")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.guarantee("a reply that was acknowledged survives whatever process is killed, until its run has read it.")
def test_a_reply_survives_the_process_that_took_it(mailbox: Mailbox, tmp_path: Path) -> None:
    ask(mailbox, question("q1"))
    child = get_context("fork").Process(target=_answer_and_die, args=(tmp_path / "mailbox.db",))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert [reply.question for reply in mailbox.replies(RUN)] == ["q1"]
    again = Mailbox(tmp_path / "mailbox.db")
    assert again.contents("q1")["b"] == b"b of reply"
    again.close()


def test_a_file_that_is_damaged_is_begun_afresh_and_whoever_had_it_open_sees_the_new_one(
    mailbox: Mailbox, tmp_path: Path
) -> None:
    ask(mailbox, question("q1"))
    other = Mailbox(tmp_path / "mailbox.db")
    assert handed(other) == "q1"
    other.close()
    mailbox.close()
    path = tmp_path / "mailbox.db"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        mailbox.hand_out(NODE, now=NOW)
    mailbox.begin(RUN)
    ask(mailbox, question("q2"))
    assert handed(other) == "q2"
    path.unlink()  # as an operator may
    other.begin(RUN)
    ask(other, question("q3"))
    assert handed(mailbox) == "q3"
    other.close()
    assert path.stat().st_mode & 0o077 == 0
