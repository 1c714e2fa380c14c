"""Decide, reserve, train, make durable, release: in that order, whatever happens in between."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import client.vault.training.round_trainer
from client.vault.ledger.approval import approve
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.outbox import Outbox
from client.vault.ledger.rows import DatasetTerms
from client.vault.service.charged_round import ChargedRound
from client.vault.training.gradient_probe import Verdict
from client.vault.training.randomness import OsRandomness
from client.vault.training.round_trainer import RoundTrainer
from client.vault_api.messages import read_reply, write_reply
from shared.adapted_model.model import build
from shared.errors import BudgetError, ExactnessError, PolicyRefusal
from shared.privacy.noise_schedule import NoiseSchedule, schedule_of
from shared.protocol.flower_records import encode_reply
from shared.protocol.messages import Status, TrainReply, TrainTask
from shared.protocol.update_encoding import WIRES
from shared.records.ragged import Records as Dataset
from shared.study.declaration import Study
from tests.support.ledgers import register, rows_of, tie

Studies, Records = Callable[..., Study], Callable[..., Dataset]


EVERY_WIRE = pytest.mark.parametrize("study", WIRES, indirect=True)


@pytest.fixture
def study(make_study: Studies, request: pytest.FixtureRequest) -> Study:
    """As float32, or in the encoding that a test asks for."""
    return make_study(adapter={"layers": "last:1"}, federation={"wire": getattr(request, "param", "float32")})


@pytest.fixture
def vault(study: Study, make_records: Records) -> RoundTrainer:
    return RoundTrainer(
        study, build(study), make_records(60), declared_size=60, randomness=lambda _round: OsRandomness()
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "node" / "ledger.db", second_copy=tmp_path / "second" / "head.json") as opened:
        register(opened, "data", epsilon=3.0, delta=1e-5)
        yield opened


def task(vault: RoundTrainer, **changes: Any) -> TrainTask:
    zeros = np.zeros(vault.model.layout.length, np.float32)
    return replace(TrainTask(vault.study.sha256, "run", 1, zeros, wire=vault.study.federation.wire), **changes)


@pytest.fixture
def charged(vault: RoundTrainer, ledger: Ledger, study: Study) -> ChargedRound:
    approve(ledger, study, dataset="data", run="run")
    return ChargedRound(vault, lambda: nullcontext(ledger), dataset="data")


@pytest.mark.guarantee("nothing that depends on the records leaves before its cost is on disk.")
def test_the_reservation_is_on_disk_before_the_first_step_and_the_bytes_before_they_leave(
    charged: ChargedRound, vault: RoundTrainer, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def looking(_step: int) -> None:
        import sqlite3

        with sqlite3.connect(f"file:{tmp_path / 'node' / 'ledger.db'}?mode=ro", uri=True) as other:
            seen.append([body for (body,) in other.execute("SELECT body FROM rows ORDER BY height")])

    monkeypatch.setattr(vault, "_on_step", looking)
    assert charged.train(task(vault)).status is Status.TRAINED
    assert len(seen) == 3 and all('"reserve"' in rows[-1] for rows in seen)
    assert [row["kind"] for row in rows_of(ledger)] == ["register", "approve", "reserve", "commit"]
    assert ledger.state.spent("data") > 0


@pytest.mark.guarantee(
    "a question that is asked again costs nothing, and gets the same bytes for as long as they are kept."
)
@EVERY_WIRE
def test_the_same_question_gets_the_same_bytes(
    charged: ChargedRound, vault: RoundTrainer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = charged.train(task(vault))
    spent = ledger.state.spent("data")
    monkeypatch.setattr(vault, "attempt", lambda *_: pytest.fail("trained again"))
    other_adapter = task(vault, adapter=np.ones(vault.model.layout.length, np.float32))
    for question in (task(vault), other_adapter):
        again = charged.train(question)
        assert write_reply(again) == write_reply(first) and again.encoding.wire == vault.study.federation.wire
        assert encode_reply(again)["reply"].deflate() == encode_reply(first)["reply"].deflate()
    assert ledger.state.spent("data") == spent


def test_every_reply_has_one_length(charged: ChargedRound, vault: RoundTrainer) -> None:
    replies = [
        charged.train(task(vault)),
        charged.train(task(vault, study_run="unknown")),
        charged.train(task(vault, round=99)),
        charged.train(task(vault, study_sha256="0" * 64)),
    ]
    assert [r.status.name for r in replies] == ["TRAINED", "REFUSED_POLICY", "REFUSED_STUDY", "REFUSED_POLICY"]
    # the server's own run and round come back as it sent them, and only they have lengths of their own
    answers = [replace(r, study_run="run", round=1) for r in replies]
    sizes = {len(encode_reply(answer)["reply"].deflate()) for answer in answers}
    assert len(sizes) == 1


def test_a_crash_while_training_is_charged_and_answered_as_lost(
    charged: ChargedRound, vault: RoundTrainer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vault, "attempt", killed)
    with pytest.raises(KeyboardInterrupt):
        charged.train(task(vault))
    monkeypatch.undo()
    spent = ledger.state.spent("data")
    lost = charged.train(task(vault))
    assert lost.status is Status.LOST and not lost.update.any()
    assert ledger.state.spent("data") == spent > 0
    assert charged.train(task(vault, round=2)).status is Status.TRAINED


def test_a_failure_that_the_data_may_have_caused_is_paid_for_and_repeated(
    charged: ChargedRound, vault: RoundTrainer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault.trainer(), "train_round", lambda *_, **__: 1 / 0)
    assert charged.train(task(vault)).status is Status.FAILED
    monkeypatch.undo()
    assert charged.train(task(vault)).status is Status.FAILED
    assert ledger.state.spent("data") > 0


@pytest.mark.guarantee("after the reservation every trouble is answered with one code.")
@pytest.mark.parametrize(
    "when", ["records are opened", "exactness", "the update is made durable", "the row is entered"]
)
def test_whatever_goes_wrong_after_the_reservation_is_one_code_and_lets_nothing_leave(
    study: Study, ledger: Ledger, make_records: Records, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    approve(ledger, study, dataset="data", run="run")
    opened = Opened(ledger, make_records(60))
    troubled = RoundTrainer(study, build(study), opened, declared_size=60, randomness=lambda _round: OsRandomness())
    if when == "records are opened":
        opened.error = MemoryError("too many")
    elif when == "exactness":
        opened.error = ExactnessError("Expected exact gradients, got others.")
    elif when == "the update is made durable":
        monkeypatch.setattr(ledger, "outbox", Outbox(ledger.path / "not-a-folder"))
    else:
        monkeypatch.setattr(ledger, "_enter_commit", lambda *_: 1 / 0)
    reply = ChargedRound(troubled, lambda: nullcontext(ledger), dataset="data").train(task(troubled))
    assert reply.status is Status.FAILED and not reply.update.any()
    assert (reply.ledger.height, ledger.state.spent("data") > 0) == (3, True)


@pytest.mark.guarantee(
    "after one failed or two lost rounds the records' account trains nothing until its operator has looked."
)
@pytest.mark.parametrize("trouble", ["failed", "lost"])
def test_a_run_that_failed_once_or_was_lost_twice_waits_for_its_operator(
    charged: ChargedRound, vault: RoundTrainer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left") if trouble == "failed" else KeyboardInterrupt

    monkeypatch.setattr(vault, "_trained", broken)
    answers = []
    for number in (1, 2, 3):
        with suppress(KeyboardInterrupt):
            answers.append(charged.train(task(vault, round=number)).status)
    refused = Status.REFUSED_POLICY
    assert answers == ([Status.FAILED, refused, refused] if trouble == "failed" else [refused])
    monkeypatch.undo()
    assert charged.train(task(vault, round=3)).status is refused, "mended, but nobody has looked"
    another = charged_for(ledger, vault, "other")
    assert another.train(task(vault, study_run="other")).status is refused, "nor may another run ask"
    ledger.resume("run", [1] if trouble == "failed" else [1, 2])
    assert another.train(task(vault, study_run="other")).status is Status.TRAINED
    with pytest.raises(PolicyRefusal, match="failed or lost rounds"):
        ledger.resume("run", [3])


def charged_for(ledger: Ledger, vault: RoundTrainer, run: str) -> ChargedRound:
    """The same records and study under one more run."""
    for name in [name for name, known in ledger.state.runs.items() if not known.closed]:
        ledger.close_run(name)
    register_row = replace(ledger.state.limits["data"], epsilon=100.0)
    ledger.state.limits["data"] = register_row  # in memory alone: room for a second run
    approve(ledger, vault.study, dataset="data", run=run)
    return ChargedRound(vault, lambda: nullcontext(ledger), dataset="data")


@pytest.mark.guarantee("the trainer trains by the very release that the reservation charged, or not at all.")
def test_another_noise_than_was_charged_is_refused_and_costs_nothing(
    charged: ChargedRound,
    vault: RoundTrainer,
    ledger: Ledger,
    make_records: Records,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, spent, asked = schedule_of, ledger.state.spent("data"), task(vault)

    def quieter(study: Study) -> NoiseSchedule:
        planned = real(study)
        return replace(planned, noise_multiplier=0.8 * planned.noise_multiplier)

    # another release of FedVault that calibrates otherwise: the ledger has the noise of the approval
    monkeypatch.setattr(client.vault.training.round_trainer, "schedule_of", quieter)
    other = RoundTrainer(
        vault.study, vault.model, make_records(60), declared_size=60, randomness=lambda _round: OsRandomness()
    )
    answering = ChargedRound(other, lambda: nullcontext(ledger), dataset="data")
    assert answering.train(asked).status is Status.REFUSED_STUDY
    assert ledger.state.spent("data") == spent
    reply = other.attempt(asked, ledger.state.run("run").per_round)
    assert reply.status is Status.FAILED and not reply.update.any(), "nor does the trainer by itself"
    monkeypatch.undo()
    assert charged.train(asked).status is Status.TRAINED


class Opened:
    """Records that remember what the ledger said when they were opened."""

    def __init__(self, ledger: Ledger, records: Dataset) -> None:
        self._ledger, self._records = ledger, records
        self.error: Exception | None = None
        self.after: list[str] = []

    def __call__(self) -> Dataset:
        self.after = [row["kind"] for row in rows_of(self._ledger)]
        if self.error is not None:
            raise self.error
        return self._records


@pytest.mark.guarantee("no record is opened for a round, and none is looked at, before the round's cost is on disk.")
@pytest.mark.guarantee("a refusal is found without looking at any record.")
def test_records_are_opened_after_the_reservation_and_the_probe_comes_before(
    study: Study, ledger: Ledger, make_records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve(ledger, study, dataset="data", run="run")
    opened, looked = Opened(ledger, make_records(60)), list[tuple[str, int]]()

    def spied(name: str) -> Callable[..., Any]:
        honest = getattr(client.vault.training.round_trainer, name)

        def spy(*arguments: Any, **named: Any) -> Any:
            looked.append((name, ledger.height))
            return honest(*arguments, **named)

        return spy

    for name in ("ensure_exact", "activations_for"):
        monkeypatch.setattr(client.vault.training.round_trainer, name, spied(name))
    vault = RoundTrainer(study, build(study), opened, declared_size=60, randomness=lambda _round: OsRandomness())
    answering = ChargedRound(vault, lambda: nullcontext(ledger), dataset="data")
    for wrong in (task(vault, round=9), task(vault, study_run="unknown")):
        answering.train(wrong)
    assert opened.after == [] and looked == [("ensure_exact", 2)], "a refusal opens no record"
    assert answering.train(task(vault)).status is Status.TRAINED
    assert opened.after == ["register", "approve", "reserve"]
    assert looked == [("ensure_exact", 2), ("activations_for", 3)]


def test_the_ledger_is_not_held_while_the_probe_or_the_training_goes_on(
    study: Study, tmp_path: Path, make_records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_ledger() -> Ledger:
        return Ledger(tmp_path / "node" / "ledger.db", second_copy=tmp_path / "second" / "head.json")

    with open_ledger() as ledger:
        register(ledger, "data", epsilon=3.0, delta=1e-5)
        approve(ledger, study, dataset="data", run="run")
    looked = list[int]()

    def look(*_: object, **__: object) -> Verdict:
        with open_ledger() as other:
            looked.append(other.height)
        return Verdict(0.0, one_by_one=False)

    monkeypatch.setattr(client.vault.training.round_trainer, "ensure_exact", look)
    vault = RoundTrainer(
        study, build(study), make_records(60), declared_size=60, randomness=lambda _round: OsRandomness(), on_step=look
    )
    assert ChargedRound(vault, open_ledger, dataset="data").train(task(vault)).status is Status.TRAINED
    assert looked == [2, 3, 3, 3]


def test_public_refusals_cost_nothing(vault: RoundTrainer, ledger: Ledger, study: Study, make_records: Records) -> None:
    approve(ledger, study, dataset="data", run="run")
    small = RoundTrainer(
        study, vault.model, make_records(60), declared_size=9, randomness=lambda _round: OsRandomness()
    )
    assert (
        ChargedRound(small, lambda: nullcontext(ledger), dataset="data").train(task(vault)).status
        is Status.REFUSED_SIZE
    )
    elsewhere = ChargedRound(vault, lambda: nullcontext(ledger), dataset="other")
    assert elsewhere.train(task(vault)).status is Status.REFUSED_POLICY
    assert ledger.state.spent("data") == 0.0


@pytest.mark.guarantee("an adapter that lies beyond what honest rounds lead to is refused before anything is paid.")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_adapter_that_no_honest_round_leads_to_is_refused_and_nothing_is_paid(
    charged: ChargedRound, vault: RoundTrainer, ledger: Ledger, number: int
) -> None:
    """Huge head rows turn the rounding of float32 into a sensitivity: one record then moves the others' gradients."""
    rows, before = np.zeros(vault.model.layout.length, np.float32), ledger.position
    rows[-2 * 32 :] = np.random.default_rng(0).choice([-1e9, 1e9], 2 * 32)
    small = np.full_like(rows, 1e-3)
    answers = [charged.train(task(vault, round=number, adapter=adapter)) for adapter in (rows, -rows, small)]
    refused, moved = Status.REFUSED_ADAPTER, Status.REFUSED_ADAPTER if number == 1 else Status.TRAINED
    assert [answer.status for answer in answers] == [refused, refused, moved], "round 1 starts where all start"
    assert not answers[0].update.any()
    assert (ledger.position == before) == (number == 1) and ledger.position.height <= before.height + 2


def test_a_study_is_approved_whole_or_not_at_all(ledger: Ledger, make_study: Studies) -> None:
    approve(ledger, make_study(privacy={"epsilon": 2.0}), dataset="data", run="first")
    with pytest.raises(BudgetError, match="epsilon=3"):
        approve(ledger, make_study(privacy={"epsilon": 3.0}), dataset="data", run="second")
    with pytest.raises(PolicyRefusal, match=r"delta of at most 1e-05, got 0.001"):
        approve(ledger, make_study(privacy={"epsilon": 0.5, "delta": 1e-3}), dataset="data", run="loose")
    with pytest.raises(PolicyRefusal, match="registered dataset"):
        approve(ledger, make_study(), dataset="nobody", run="third")


def test_a_tie_found_after_approval_ends_what_no_longer_fits(
    charged: ChargedRound, vault: RoundTrainer, ledger: Ledger, study: Study
) -> None:
    register(ledger, "twin", epsilon=3.0, delta=1e-5)
    approve(ledger, study, dataset="twin", run="other")
    for number in (1, 2, 3):
        ledger.reserve("other", number)
        ledger.commit("other", number, b"released")
    tie(ledger, "data", ["twin"])
    refused = charged.train(task(vault))
    assert refused.status is Status.REFUSED_BUDGET and not refused.update.any()
    assert ledger.state.spent("data") <= 3.0


@pytest.mark.parametrize("terms", [DatasetTerms("record", 70), DatasetTerms("patient", 60), DatasetTerms("record", 60)])
def test_a_size_or_unit_other_than_the_registered_one_is_refused_and_costs_nothing(
    charged: ChargedRound, vault: RoundTrainer, ledger: Ledger, terms: DatasetTerms
) -> None:
    ledger.state.terms["data"] = terms  # as a register row enters it
    agrees = terms == DatasetTerms("record", 60)
    assert charged.train(task(vault)).status is (Status.TRAINED if agrees else Status.REFUSED_STUDY)
    assert (ledger.state.spent("data") > 0) is agrees


@EVERY_WIRE
def test_a_written_reply_is_read_back(vault: RoundTrainer) -> None:
    reply = vault.train(task(vault))
    written = write_reply(reply)
    assert write_reply(read_reply(written)) == written and read_reply(written).encoding == reply.encoding
    assert read_reply(written).update.tobytes() == reply.update.tobytes()


def test_a_reply_that_was_kept_before_there_was_a_choice_is_float32(vault: RoundTrainer) -> None:
    kept = write_reply(vault.train(task(vault)))
    older = kept.replace(b', "wire": "float32"', b"")
    assert older != kept and write_reply(read_reply(older)) == kept


def test_what_is_added_to_a_secure_sum_is_kept_as_it_is() -> None:
    masked = TrainReply("s", "r", 1, "b", Status.TRAINED, np.zeros(0, np.float32), masked=b"\x00\n{\xff" * 9)
    assert read_reply(write_reply(masked)).masked == masked.masked
    assert write_reply(read_reply(write_reply(masked))) == write_reply(masked)
