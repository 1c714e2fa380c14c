"""A round asks as many as the study says, drawn anew each time, and the same again after a crash."""

from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from server.aggregation.mean import UniformMean
from server.rounds.checkpoints import Checkpoints
from server.rounds.cohort import draw_cohort, in_order
from server.rounds.coordinator import Coordinator, RunTerms
from shared.errors import SettingsError
from shared.protocol.flower_records import decode_task, encode_reply
from shared.protocol.messages import Status, TrainReply
from shared.study.declaration import Study
from simulations.engines.grid import LocalGrid
from tests.support.in_process_grid import in_process

NODES, COHORT, ROUNDS, LENGTH = 12, 3, 5, 4


def grid(
    pool: ThreadPoolExecutor, asked: list[tuple[int, int]], cut: int = 0, refusing: Collection[int] = ()
) -> LocalGrid:
    """Honest nodes that note who is asked in which round, some of which refuse; the grid breaks in round `cut`."""

    def handle(message: Message, partition: int, _nodes: int) -> Message:
        task = decode_task(message.content)
        asked.append((task.round, partition + 1))
        update = np.full(LENGTH, partition + 1.0, np.float32)
        identity = (task.study_sha256, task.study_run, task.round, task.adapter_sha256)
        status = Status.REFUSED_HOURS if partition + 1 in refusing else Status.TRAINED
        return Message(encode_reply(TrainReply(*identity, status, update)), reply_to=message)

    class Grid(LocalGrid):
        def pull_messages(self, message_ids: Any) -> Any:
            replies = list(super().pull_messages(message_ids))
            if replies and cut and max(number for number, _ in asked) == cut:
                raise KeyboardInterrupt
            return replies

    return Grid(in_process(pool, handle), [1] * NODES)


def coordinator(grid: LocalGrid, folder: Path) -> Coordinator:
    return Coordinator(
        grid,
        RunTerms("study", "run", ROUNDS, 2, 20.0, cohort=COHORT),
        initial=np.zeros(LENGTH, np.float32),
        largest_norm=lambda _number: 100.0,
        aggregation=lambda start: UniformMean(start.length),
        checkpoints=Checkpoints(folder),
    )


def test_a_round_asks_its_cohort_and_nobody_else(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []
    with ThreadPoolExecutor(4) as pool:
        state = coordinator(grid(pool, asked), tmp_path).run()
    for record in state.records:
        assert len(record["asked"]) == COHORT and record["accepted"] == record["asked"]
        assert sorted(node for number, node in asked if number == record["round"]) == record["asked"]
    assert len({tuple(record["asked"]) for record in state.records}) > 1


@pytest.mark.guarantee(
    "a run that was cut off asks those of a round's cohort again whom it had asked, before anybody else."
)
@pytest.mark.parametrize("cut", [1, 3])
def test_a_run_cut_off_asks_the_same_cohort_again(tmp_path: Path, cut: int) -> None:
    before, after, uncut = list[tuple[int, int]](), list[tuple[int, int]](), list[tuple[int, int]]()
    with ThreadPoolExecutor(4) as pool:
        with pytest.raises(KeyboardInterrupt):
            coordinator(grid(pool, before, cut), tmp_path / "cut").run()
        resumed = coordinator(grid(pool, after), tmp_path / "cut").run()
        straight = coordinator(grid(pool, uncut), tmp_path / "whole").run()
    assert {node for number, node in before if number == cut} <= set(resumed.records[cut - 1]["asked"])
    assert resumed.adapter.tobytes() == straight.adapter.tobytes()


def test_a_cohort_is_filled_up_from_its_own_order_and_nobody_else_is_asked(tmp_path: Path) -> None:
    order = in_order(range(1, NODES + 1), study_run="run", number=1)
    for number, refusing in enumerate(({order[0], order[1]}, {order[1], order[2], order[3]}, {order[2]}, set[int]())):
        asked: list[tuple[int, int]] = []
        with ThreadPoolExecutor(4) as pool:
            (record, *_) = coordinator(grid(pool, asked, refusing=refusing), tmp_path / str(number)).run().records
        # a quorum of 2: with two of a cohort of 3 left, it is filled up as soon as it falls below
        enough = next(n for n in range(COHORT, NODES + 1) if len(set(order[:n]) - refusing) >= 2)
        assert record["asked"] == sorted(order[:enough]) and record["outcome"] == "aggregated"
        assert record["accepted"] == sorted(set(order[:enough]) - refusing)
        assert [entry["node"] for entry in record["refused"]] == sorted(refusing & set(order[:enough]))


@pytest.mark.guarantee("whoever was asked before and is still present is asked again before anybody else is.")
def test_whoever_was_asked_keeps_the_place_when_others_come() -> None:
    first = draw_cohort(range(1, 9), cohort=3, study_run="run", number=2)
    again = draw_cohort(range(1, 1000), cohort=3, study_run="run", number=2, asked_before=first)
    assert again == first
    gone = [node for node in range(1, 1000) if node != first[0]]
    assert set(first[1:]) < set(draw_cohort(gone, cohort=3, study_run="run", number=2, asked_before=first))


def test_the_draw_favours_nobody() -> None:
    rounds = 4000
    counts = Counter(
        n for r in range(rounds) for n in draw_cohort(range(NODES), cohort=COHORT, study_run="run", number=r)
    )
    # binomial: mean 1000, standard deviation 27; five of them miss for one of twelve nodes once in 150,000 seeds
    assert all(abs(counts[node] - rounds * COHORT / NODES) < 5 * 27.4 for node in range(NODES))


def test_without_a_cohort_or_enough_nodes_all_are_asked() -> None:
    assert draw_cohort([3, 1, 2], cohort=None, study_run="run", number=1) == [1, 2, 3]
    assert draw_cohort([3, 1, 2], cohort=5, study_run="run", number=1) == [1, 2, 3]


def test_a_damaged_note_of_whom_was_asked_is_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.keep_asked(3, [5, 4], missed=2)
    assert checkpoints.asked(3) == ([4, 5], 2) and checkpoints.asked(4) == ([], 0)
    (tmp_path / "asked.json").write_text('{"round": 3')
    assert checkpoints.asked(3) == ([], 0)
    (tmp_path / "asked.json").write_text('{"round": 3, "nodes": [5]}')
    assert checkpoints.asked(3) == ([5], 0), "from before a round was asked again"


def test_a_cohort_below_the_quorum_is_refused(make_study: Callable[..., Study]) -> None:
    with pytest.raises(SettingsError, match=r"at least federation\.quorum = 4, got 3"):
        make_study(federation={"quorum": 4, "cohort": 3})


def test_a_study_without_a_cohort_keeps_its_identity(make_study: Callable[..., Study]) -> None:
    study = make_study()
    assert "cohort" not in study.canonical_json()
    assert make_study(federation={"cohort": 4}).sha256 != study.sha256
    assert Study.model_validate_json(study.canonical_json()).sha256 == study.sha256
