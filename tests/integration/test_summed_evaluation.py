"""Evaluations whose counts only open as a sum: the server's own questions over the vault's own pieces."""

import itertools
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.vault.service import charged_evaluation
from server.private_evaluation import asking
from server.private_evaluation.answers import Answer
from server.private_evaluation.asking import PrivateEvaluations
from server.rounds import participants
from server.run_store.values import Event
from server.secure_sum import opening
from server.secure_sum.files import SumFiles
from server.secure_sum.history import history_lines, roster_event, sum_history
from server.secure_sum.opening import Opening
from shared.private_evaluation.estimates import Evaluated
from shared.private_evaluation.noise import sigma
from shared.private_evaluation.wording import headline, markdown
from shared.protocol.messages import NO_POSITION, LedgerPosition, LegReply, LegTask, Status
from tests.support.killed_between import Killed, killed_after
from tests.support.sum_both_sides import BothSides, Vault
from tests.support.sum_nodes import NAMES, exact, sum_study
from tests.support.sum_server import NodesGrid


class Kept:
    """What a run store keeps, over kills."""

    def __init__(self, server: BothSides) -> None:
        self._server, self.answered = server, dict[tuple[int, str], Answer]()
        self.finished = dict[int, Evaluated]()

    def is_finished(self, number: int) -> bool:
        return number in self.finished

    def answers(self, number: int) -> Mapping[str, Answer]:
        # what is written down of an answer has no part of a sum in it
        kept = {site: answer for (of, site), answer in self.answered.items() if of == number}
        return {site: Answer.from_dict(answer.as_dict()) for site, answer in kept.items()}

    def asks(self, number: int, nodes: list[int]) -> None:
        del number, nodes

    def keep(self, number: int, node: int, site: str, answer: Answer) -> None:
        del node
        self.answered.setdefault((number, site), answer)

    def finish(self, evaluated: Evaluated) -> None:
        assert evaluated.number not in self.finished
        self.finished[evaluated.number] = Evaluated.model_validate_json(evaluated.model_dump_json())

    def ledger_position(self, node: int) -> LedgerPosition:
        del node
        return NO_POSITION

    def site(self, node: int) -> str:
        return self._server.names()[node]


class Evaluating(BothSides):
    """Rounds with an evaluation after each."""

    def __init__(self, folder: Path, mode: str = "shared", *, rounds: int = 1) -> None:
        super().__init__(folder, study=sum_study(mode, evaluates=True, deadline_s=1.0), rounds=rounds)
        self.kept = Kept(self)
        study = self.federation.study

        def evaluating(opening: Opening) -> Any:
            return PrivateEvaluations(self.grid, study, "r-1", 0.0, self.kept, opening=opening).after  # type: ignore[arg-type]

        self.evaluating = evaluating

    def history(self) -> dict[str, Any]:
        fixed = self.roster.fixed
        assert fixed is not None
        events = [roster_event(fixed), *self.events]
        known = sum_history([Event(place, "r-1", "2026", kind, body) for place, (kind, body) in enumerate(events)])
        assert known is not None
        return known


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charged_evaluation, "exact_histogram", exact)
    monkeypatch.setattr(participants, "POLL_S", 0.001)
    for module, name in ((asking, "LOOK_EVERY_S"), (asking, "LONGEST_POLL_S"), (opening, "LONGEST_POLL_S")):
        monkeypatch.setattr(module, name, 0.001)


@pytest.fixture
def both(tmp_path: Path) -> Evaluating:
    return Evaluating(tmp_path)


def units(evaluated: Evaluated) -> float | None:
    return next(one.value for one in evaluated.estimates if one.measure == "units")


@pytest.mark.guarantee(
    "the server opens the sum of an evaluation's counts over those that answered, and no site's own."
)
@pytest.mark.parametrize("mode", ["masked", "shared"])
def test_the_server_has_the_sum_alone_with_the_noise_of_all_that_are_in_it(mode: str, tmp_path: Path) -> None:
    both = Evaluating(tmp_path, mode, rounds=2)
    both.drive()
    each = sigma(both.federation.study) * (1.0 if mode == "masked" else 2**-0.5)
    for number, evaluated in both.kept.finished.items():
        assert evaluated.sites == NAMES and evaluated.sigma == pytest.approx(each), number
        assert evaluated.one_sum is not None and evaluated.one_sum.noise == mode
        assert evaluated.one_sum.sigma == pytest.approx(2 * each)
        assert units(evaluated) == 400.0
        assert not {one.scope for one in evaluated.estimates} & {"site", "worst site"}
    kept = [answer for answer in both.kept.answered.values() if answer.counted]
    assert len(kept) == 8 and not any(len(answer.histogram) or answer.masked for answer in kept)
    rows = ["register", "approve", "roster"]
    rows += ["reserve", "commit", "survivors", "evaluation", "evaluated", "survivors"] * 2
    assert all(vault.node.row_kinds() == rows for vault in both.vaults)


def test_it_is_said_plainly_that_no_number_of_a_site_exists(both: Evaluating) -> None:
    both.drive()
    said = headline(both.kept.finished[1])
    assert "only the sum of 4 sites' counts" in said and "no number of a single site, and no worst one" in said
    assert "no worst one" in markdown(both.kept.finished[1])
    lines = history_lines(both.history())
    assert "Evaluation after round 1: opened, survivors east, north, south, west." in lines
    assert "Round 1: opened, survivors east, north, south, west." in lines


def test_a_node_that_goes_away_after_its_counts_left_is_in_the_sum_where_the_others_can_open_it(
    both: Evaluating,
) -> None:
    leaving = both.vaults[3]

    def leaves(task: LegTask) -> LegReply:
        leaving.present = leaving.present and task.purpose != "evaluation"
        return Vault.leg(leaving, task)

    leaving.leg = leaves  # type: ignore[method-assign]
    both.drive()
    first = both.kept.finished[1]
    assert (units(first), first.sites, first.without) == (400.0, NAMES, {})


def test_a_node_that_failed_is_in_no_sum_and_the_noise_of_the_others_is_counted(both: Evaluating) -> None:
    both.vaults[1].node.trainer.model.counts = None
    both.drive()
    evaluated = both.kept.finished[1]
    assert (units(evaluated), evaluated.without) == (300.0, {"north": "failed"}) and "north" not in evaluated.sites
    assert evaluated.one_sum is not None
    assert evaluated.one_sum.sigma == pytest.approx(3**0.5 * evaluated.sigma)


def test_fewer_than_the_threshold_open_nothing_and_the_run_goes_on(both: Evaluating) -> None:
    for vault in both.vaults[:2]:
        vault.node.trainer.model.counts = None
    state = both.drive()
    assert state.records[0]["outcome"] == "aggregated" and state.round == 1
    lost = both.kept.finished[1]
    assert (lost.estimates, lost.sites) == ((), ()) and lost.one_sum is not None and lost.one_sum.sigma is None
    assert lost.without == {"east": "failed", "north": "failed", "south": "left-out", "west": "left-out"}
    assert "no counts: fewer nodes than the threshold" in headline(lost)
    assert all(vault.node.row_kinds().count("survivors") == 1 for vault in both.vaults), "of the round alone"


def test_a_part_that_is_none_of_this_sum_is_unreadable(both: Evaluating) -> None:
    """The first node answers an evaluation with what it gave to the round before."""
    cheat = both.vaults[0]
    really = cheat.evaluate

    def other(task: Any) -> Any:
        from dataclasses import replace

        reply = really(task)
        with cheat.node.ledger() as ledger:
            from client.vault_api.messages import read_reply

            written = ledger.answer("r-1", task.number)
        assert written is not None
        return replace(reply, masked=read_reply(written).masked)

    cheat.evaluate = other  # type: ignore[method-assign]
    both.drive()
    assert both.kept.finished[1].without == {"east": "unreadable"} and units(both.kept.finished[1]) == 300.0


WRITES: list[tuple[Any, tuple[str, ...]]] = [
    (SumFiles, ("keep", "keep_vector")),
    (Kept, ("keep", "finish")),
    (NodesGrid, ("push_messages",)),
]


@pytest.mark.guarantee("a sum has one set of survivors, however often the server is killed.")
@pytest.mark.guarantee("the survivors of a sum are on the disk before the first node is asked to sign them.")
@pytest.mark.parametrize("fails", [None, 1], ids=["all there", "one missing"])
def test_a_kill_between_any_two_writes_or_messages_changes_no_survivor_and_no_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int | None
) -> None:
    results = set[str]()
    for writes in itertools.count(fails or 0, 5):
        both = Evaluating(tmp_path / str(writes))
        if fails is not None:
            both.vaults[fails].node.trainer.model.counts = None
        with killed_after(writes, WRITES, monkeypatch) as killed:
            with suppress(Killed):
                both.drive()
            was_killed = killed()
        both.drive()
        assert set(both.kept.finished) == {1}
        sets = {(body["round"], body.get("purpose")): set() for kind, body in both.events if kind == "fixed"}
        for body in (body for kind, body in both.events if kind == "fixed"):
            sets[body["round"], body.get("purpose")].add(tuple(body["survivors"]))
        assert len(sets) == 2 and all(len(once) == 1 for once in sets.values())
        for vault in both.vaults:
            kinds = vault.node.row_kinds()
            assert kinds.count("evaluation") == 1 and kinds.count("survivors") <= 2
        results.add(both.kept.finished[1].model_dump_json())
        if not was_killed:
            break
    assert writes > 15 and len(results) == 1


def test_a_server_that_lost_what_it_had_fixed_cannot_open_a_second_set_of_counts(
    both: Evaluating, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_after(0, [(Kept, ("finish",))], monkeypatch), pytest.raises(Killed):
        both.drive()
    for file in SumFiles(both.folder / "sum").folder.glob("evaluation-*"):
        file.unlink()
    both.vaults[3].present = False
    both.drive()
    lost = both.kept.finished[1]
    assert lost.one_sum is not None and "refused_survivors" in lost.one_sum.lost and lost.estimates == ()
    assert "lost" in [one["state"] for one in both.history()["evaluations"]]


def test_what_no_honest_nodes_can_have_counted_is_not_used(both: Evaluating) -> None:
    both.vaults[2].node.trainer.model.counts = (2**37, 5)
    both.drive()
    evaluated = both.kept.finished[1]
    assert evaluated.one_sum is not None and "cannot be one of honest nodes" in evaluated.one_sum.lost
    assert evaluated.estimates == () and np.isclose(evaluated.epsilon, 2.0)


def test_a_node_without_its_keys_is_out_of_the_evaluation_too(both: Evaluating) -> None:
    import shutil

    gone = both.vaults[0]
    really = gone.evaluate

    def restored(task: Any) -> Any:
        shutil.rmtree(gone.node.folder / "secure_sum", ignore_errors=True)
        return really(task)

    gone.evaluate = restored  # type: ignore[method-assign]
    both.drive()
    assert both.kept.finished[1].without == {gone.name: Status.OUT_OF_SECURE_SUM.name.lower()}
    assert gone.name in both.roster.gone
