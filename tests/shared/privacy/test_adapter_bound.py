"""The bound on a task's adapter: honest runs stay inside, in every study, and not much more does."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.vault.training.rounding import encoding_for, rounded
from server.aggregation.method import METHODS, RoundStart
from shared.adapted_model.adapters import Layout
from shared.privacy.adapter_bound import METHOD_REACH, AdapterBound, Reach, part_places, worst_adapter
from shared.privacy.noise_schedule import plan
from shared.privacy.study_steps import batch_of, part_name, parts_in
from shared.protocol.messages import Vector
from shared.study.declaration import Study
from shared.study.schedule import round_factors

BASE, HEAD = ("base.layer.0.lora_B.weight", (24, 8)), (("head.bias", (3,)), ("head.weight", (3, 24)))
BOTH = Layout((BASE, *HEAD))
WHITENED = Layout(
    (BASE, ("head.linear.bias", (3,)), ("head.linear.weight", (3, 24)), ("head.moments.weight", (24, 24)))
)
SIZES = (10, 12, 47, 300, 5000)
STUDIES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "many short rounds": {"federation": {"rounds": 60}, "training": {"local_steps": 1}},
    "two long rounds": {"federation": {"rounds": 2}, "training": {"local_steps": 200}},
    "one vector, cut flat": {"privacy": {"head_share": None, "clipping": "flat", "clip_norm": 0.3}},
    "all of the records": {"privacy": {"sampling_rate": 1.0, "epsilon": 0.3}},
    "hardly any noise": {"privacy": {"epsilon": 100.0, "sampling_rate": 0.01}},
    "a typical size": {"federation": {"typical_size": 40}},
    "a typical size below the smallest site": {"federation": {"typical_size": 2}},
    "bytes": {"federation": {"wire": "int8", "rounds": 12}},
    "bytes, loud": {"federation": {"wire": "int8", "rounds": 12}, "privacy": {"epsilon": 0.2}},
    "halves": {"federation": {"wire": "bfloat16"}},
    "measured first": {"training": {"whitening": True}},
    "measured first, in bytes": {"training": {"whitening": True}, "federation": {"wire": "int8"}},
    "rates next to nothing": {"training": {"learning_rate": 1e-9, "adapter_learning_rate": 1e-12}},
    "another start": {"adapter": {"method": "dora"}, "federation": {"aggregation": "fedit"}},
    "a method that is not known here": {"federation": {"aggregation": "median"}},
    "the geometric median": {"federation": {"aggregation": "geometric-median"}},
}


def layout_and_start(study: Study) -> tuple[Layout, Vector]:
    layout = WHITENED if study.training.whitening else BOTH
    start = np.random.default_rng(1).normal(0, 3, layout.length) * (study.adapter.method == "dora")
    return layout, start.astype(np.float32)


def honest_update(study: Study, layout: Layout, number: int, declared: int, aim: Vector, rng: Any) -> Vector:
    """One site's update whose gradients are all as long as they may be, and point the same way in every round."""
    schedule, batch = plan(study.privacy, steps=study.total_steps), batch_of(study, declared)
    factors = np.array(round_factors(study, number))
    update, names = (
        np.zeros(layout.length),
        np.repeat(
            [part_name(name) for name, _ in layout.tensors], [int(np.prod(shape)) for _, shape in layout.tensors]
        ),
    )
    for part in parts_in(study, layout.tensors, number):
        own = names == part.name
        drawn = factors @ rng.binomial(declared, schedule.sampling_rate, len(factors))
        signal = np.sqrt(part.share or 1.0) * drawn * aim[own] / np.linalg.norm(aim[own])
        noise = schedule.noise_multiplier * np.linalg.norm(factors) * rng.standard_normal(own.sum())
        update[own] = part.learning_rate * schedule.clip_norm / batch.divisor * (signal + noise)
    encoding = encoding_for(study, layout, declared_size=declared, round_number=number)
    return rounded(update.astype(np.float32), encoding, rng.random(layout.length))


def excesses_of(study: Study, sizes: tuple[int, ...], seed: int) -> Iterator[tuple[bool, Reach]]:
    """An honest run: before every round whether its adapter is left alone, and how much of the bound it takes."""
    layout, start = layout_and_start(study)
    rng, adapter, bound = np.random.default_rng(seed), start, AdapterBound(study, layout, start)
    aim = np.ones(layout.length, np.float32)
    if seed % 2:  # one value of each part takes all
        aim = np.eye(layout.length, dtype=np.float32)[[0, BOTH.length - 1, -1]].sum(0)
    for number in range(1, 2 + study.federation.rounds):
        excesses = bound.excesses(number, adapter).values()
        worst = Reach(max(excess.entry for excess in excesses), max(excess.length for excess in excesses))
        yield bound.admits(number, adapter) and bound.nearest(number, adapter) is adapter, worst
        if number <= study.federation.rounds:
            name = study.federation.aggregation
            method = METHODS[name if name in METHODS else "ffa"]
            collected = method.start(RoundStart(number, layout.length, {}, [*part_places(layout).values()]))
            for declared in sizes:
                collected.add(honest_update(study, layout, number, declared, aim, rng))
            adapter = collected.result(adapter)


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:1]], ids=["sites of many sizes", "the smallest site alone"])
@pytest.mark.parametrize("case", STUDIES)
def test_no_honest_run_leaves_the_bound_and_the_bound_is_not_far(
    make_study: Any, case: str, sizes: tuple[int, ...]
) -> None:
    """False alarms: below 1e-6 over all cases, since every adapter lies outside with a probability of e^-18 at most."""
    study: Study = make_study(**STUDIES[case])
    closest = Reach(0.0, 0.0)
    for seed in range(6):
        for untouched, excess in excesses_of(study, sizes, seed):
            assert untouched
            closest = Reach(max(closest.entry, excess.entry), max(closest.length, excess.length))
    if sizes == SIZES[:1]:
        assert max(closest) > 0.2, "ten times as far would certainly be refused"


def test_the_heaviest_site_alone_stays_inside(make_study: Any) -> None:
    """A site that counts as four, where all divide by one size, and one beyond it."""
    study: Study = make_study(federation={"typical_size": 40})
    for declared in (160, 170, 10_000):
        assert all(untouched for untouched, _ in excesses_of(study, (declared,), seed=2))


@pytest.mark.guarantee(
    "the bound follows from public numbers alone: the study, the model's shapes and start, and the round."
)
def test_the_bound_says_how_far_each_round_can_lead(make_study: Any) -> None:
    study, (layout, start) = make_study(), layout_and_start(make_study())
    reach = AdapterBound(study, layout, start).reach
    assert len(reach) == 1 + study.federation.rounds
    assert reach[0] == {"head": (0, 0), "adapter": (0, 0)}, "in round 1 nothing has moved yet"
    for part in ("head", "adapter"):
        entries, lengths = zip(*(each[part] for each in reach), strict=True)
        assert list(entries) == sorted(set(entries)) and list(lengths) == sorted(set(lengths))
    slower = AdapterBound(make_study(training={"learning_rate": 8.0}), layout, start).reach[2]
    assert slower["head"].entry == pytest.approx(reach[2]["head"].entry / 2)
    assert slower["adapter"] == reach[2]["adapter"]
    larger = make_study(federation={"smallest_declared_size": 1000})
    assert AdapterBound(larger, layout, start).reach[2]["head"].entry < reach[2]["head"].entry / 5


def test_moments_move_in_the_round_that_measures_and_nothing_else_does(make_study: Any) -> None:
    study = make_study(training={"whitening": True})
    _, second, third, _ = AdapterBound(study, *layout_and_start(study)).reach
    assert second["head"].entry < 1e-9 > second["adapter"].entry and second["moments"].entry > 0.1
    assert third["head"].entry > 1 and third["moments"].entry == pytest.approx(second["moments"].entry)


@pytest.mark.parametrize("case", STUDIES)
def test_whatever_lies_far_out_is_refused(make_study: Any, case: str) -> None:
    study: Study = make_study(**STUDIES[case])
    layout, start = layout_and_start(study)
    bound = AdapterBound(study, layout, start)
    for number in range(1, 1 + study.federation.rounds):
        assert bound.admits(number, start) and bound.admits(number, bound.edge(number, 0))
        for place, (name, (entry, length)) in enumerate(bound.reach[number - 1].items()):
            where = np.flatnonzero(part_of_values(layout) == name)
            one, many = start.copy(), start.astype(np.float64)
            one[where[place]] += np.float32(2 * entry + 1e-6)
            many[where] += 2 * length / np.sqrt(len(where)) + 1e-6
            assert not bound.admits(number, one) and not bound.admits(number, many.astype(np.float32))
        rows = start.copy()
        rows[-24:] = 1e9
        assert not bound.admits(number, rows), "huge head rows: what the attack on float32 sends"


@pytest.mark.guarantee("every node admits what it returns.")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it only makes studies
@given(st.integers(1, 3), st.integers(0, 2**32 - 1), st.floats(-12, 38), st.sampled_from(sorted(STUDIES)))
def test_what_is_cut_is_admitted(make_study: Any, number: int, seed: int, power: float, case: str) -> None:
    study: Study = make_study(**STUDIES[case])
    layout, start = layout_and_start(study)
    bound, number = AdapterBound(study, layout, start), min(number, study.federation.rounds)
    wild = np.random.default_rng(seed).standard_normal(layout.length) * 10.0**power
    with np.errstate(over="ignore"):
        adapter = np.nan_to_num((start + np.clip(wild, -3e38, 3e38)).astype(np.float32))
    cut = bound.nearest(number, adapter)
    assert cut.dtype == np.float32 and bound.admits(number, cut)


def test_the_worst_adapter_is_on_the_edge_and_always_the_same(make_study: Any) -> None:
    for case, changes in STUDIES.items():
        study: Study = make_study(**changes)
        layout, start = layout_and_start(study)
        worst, bound = worst_adapter(study, layout, start), AdapterBound(study, layout, start)
        last = study.federation.rounds
        assert bound.admits(last, worst) and worst.tobytes() == worst_adapter(study, layout, start).tobytes()
        assert all(0.99 < max(excess) < 1.01 for excess in bound.excesses(last, worst).values()), case
        assert worst.tobytes() != worst_adapter(study, layout, start, seed=1).tobytes()


def test_every_method_of_the_server_states_its_reach() -> None:
    assert set(METHODS) == set(METHOD_REACH)


def part_of_values(layout: Layout) -> Any:
    return np.concatenate([np.full(int(np.prod(shape)), part_name(name)) for name, shape in layout.tensors])
