"""Rounding after the noise: without bias, within a step, and from public numbers alone.

Each statistical check fails a correct implementation with probability below 1e-6.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from client.vault.training.randomness import KeyStream, OsRandomness
from client.vault.training.round_trainer import RoundTrainer
from client.vault.training.rounding import LARGEST_BFLOAT16, encoding_for, rounded
from client.vault.training.trainer import PrivateTrainer
from server.rounds.update_bounds import norm_bound
from shared.adapted_model.model import build
from shared.protocol.messages import Status, TrainTask
from shared.protocol.update_encoding import Encoding, Grid, Wire, pack
from shared.records.ragged import Records as Dataset
from shared.study.declaration import Study
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

Records = Callable[..., Dataset]
Studies = Callable[..., Study]
DRAWS, SIX_SIGMA = 4000, 6.0
GRID = Grid.fitted(1, largest=5.0, finest=0.02)
SHORT: list[Wire] = ["bfloat16", "int8"]
VALUES = np.array([0.0, 0.013, -0.013, 0.7, -1.234567, 4.9, 1e-5], np.float32)


def encoding(wire: Wire, length: int) -> Encoding:
    return Encoding(wire, (Grid(length, GRID.width, GRID.bend), Grid(0)) if wire == "int8" else ())


def drawn(wire: Wire, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each value rounded many times (DRAWS, values)."""
    many = np.tile(values, DRAWS)
    found = rounded(many, encoding(wire, len(many)), OsRandomness().step().uniforms(len(many)))
    return found.astype(np.float64).reshape(DRAWS, len(values))


def steps_at(wire: Wire, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far apart the two neighbours of each value are: by looking them up, and by bfloat16's seven stored bits."""
    if wire == "bfloat16":
        return np.where(values == 0, 0.0, 2.0 ** (np.floor(np.log2(np.abs(values) + (values == 0))) - 7))
    points = GRID.values().astype(np.float64)
    above = np.array([points[points > value].min() for value in values])
    return above - np.array([points[points <= value].max() for value in values])


@pytest.mark.guarantee(
    "between a grid's ends the mean over the random numbers is the value itself, and no draw is further from it than "
    "one step."
)
@pytest.mark.parametrize("wire", SHORT)
def test_rounding_is_unbiased_and_within_a_step_and_rounding_to_the_nearest_would_be_seen(wire: Wire) -> None:
    found, steps = drawn(wire, VALUES), steps_at(wire, VALUES)
    assert (np.abs(found - VALUES) <= steps * (1 + 1e-6)).all()
    # a draw's deviation is at most half a step
    allowed = SIX_SIGMA * steps / 2 / np.sqrt(DRAWS)
    assert (np.abs(found.mean(0) - VALUES) <= allowed + 1e-12).all()
    nearest = rounded(VALUES, encoding(wire, len(VALUES)), np.full(len(VALUES), 0.5))
    assert (np.abs(nearest - VALUES) > allowed).any()


def test_rounding_adds_less_than_a_hundredth_of_the_noises_variance() -> None:
    noise = np.random.default_rng(0).normal(0, 0.16, 200_000).astype(np.float32)  # eight times the first step
    error = rounded(noise, encoding("int8", len(noise)), OsRandomness().step().uniforms(len(noise))) - noise
    assert 0 < error.var() < 0.16**2 / 100


def test_what_lies_beyond_the_ends_goes_to_the_ends() -> None:
    far = np.array([7.0, -1e30], np.float32)
    assert np.abs(rounded(far, encoding("int8", 2), np.full(2, 0.5))).tolist() == pytest.approx([5.0, 5.0])
    largest = np.array([np.finfo(np.float32).max, np.finfo(np.float32).min], np.float32)
    ends = rounded(largest, Encoding("bfloat16"), np.full(2, 1 - 2.0**-53))
    assert ends.tolist() == [LARGEST_BFLOAT16, -LARGEST_BFLOAT16]


@pytest.mark.parametrize("wire", SHORT)
def test_what_the_encoding_has_already_is_left_alone(wire: Wire) -> None:
    once = drawn(wire, VALUES)[0].astype(np.float32)
    assert drawn(wire, once).tolist() == [once.astype(np.float64).tolist()] * DRAWS


def vault(study: Study, records: Dataset, declared: int = 60) -> RoundTrainer:
    def seeded(number: int) -> SeededRandomnessForSimulation:
        return SeededRandomnessForSimulation(1, number)

    return RoundTrainer(study, build(study), records, declared_size=declared, randomness=seeded)


def task(vault: RoundTrainer, number: int = 1) -> TrainTask:
    zeros = np.zeros(vault.model.layout.length, np.float32)
    return TrainTask(vault.study.sha256, "run", number, zeros, wire=vault.study.federation.wire)


@pytest.mark.guarantee(
    "rounding reads the noised update, its public encoding and random numbers of its own, and nothing else."
)
@pytest.mark.guarantee("an encoding follows from the study, the round, the model's shapes and the declared size alone.")
@pytest.mark.parametrize("wire", SHORT)
def test_after_the_noise_no_record_can_change_a_byte(
    make_study: Studies, make_records: Records, monkeypatch: pytest.MonkeyPatch, wire: Wire
) -> None:
    study = make_study(federation={"wire": wire})
    usual, other = (vault(study, make_records(60, seed=seed)) for seed in (0, 1))
    trained = [v.train(task(v)) for v in (usual, other)]
    assert trained[0].update.tobytes() != trained[1].update.tobytes()
    assert trained[0].encoding == trained[1].encoding
    # the same noised update from other records: every byte is the same
    noised = np.random.default_rng(0).normal(0, 1, usual.model.layout.length).astype(np.float32)
    monkeypatch.setattr(PrivateTrainer, "train_round", lambda *_, **__: noised)
    released = [v.train(task(v, 2)) for v in (usual, other, vault(study, make_records(0)))]
    assert {r.status for r in released} == {Status.TRAINED}
    assert len({pack(r.update, r.encoding) for r in released}) == 1


def test_the_grids_change_with_every_public_number_they_are_from(make_study: Studies) -> None:
    study = make_study(federation={"wire": "int8"})
    layout = build(study).layout

    def grids(study: Study, *, declared_size: int = 60, round_number: int = 1) -> tuple[Grid, ...]:
        return encoding_for(study, layout, declared_size=declared_size, round_number=round_number).grids

    usual = grids(study)
    others = [
        grids(study, declared_size=600),
        grids(study, round_number=2),
        grids(make_study(federation={"wire": "int8"}, privacy={"epsilon": 1.0})),
        grids(make_study(federation={"wire": "int8"}, training={"adapter_learning_rate": 2.0})),
        grids(make_study(federation={"wire": "int8", "typical_size": 100})),
    ]
    assert len({usual, *others}) == 6
    assert sum(grid.length for grid in usual) == layout.length and usual[1].length == 2 * 32 + 2, "the head's own"


@pytest.mark.parametrize("sizes", [{}, {"typical_size": 100}])
def test_the_first_step_is_an_eighth_of_the_deviation_of_the_noise_that_training_adds(
    make_study: Studies, make_records: Records, sizes: dict[str, int]
) -> None:
    study = make_study(adapter={"method": "head-only"}, federation=sizes)
    noise_only = vault(study, make_records(0), declared=500)
    measured = noise_only.train(task(noise_only)).update[:64]
    int8 = make_study(adapter={"method": "head-only"}, federation={"wire": "int8"} | sizes)
    grid = encoding_for(int8, noise_only.model.layout, declared_size=500, round_number=1).grids[1]
    # 64 values: the deviation of a sample is right within 55 %, six of its own deviations
    assert grid.values()[128] == pytest.approx(measured.std() / 8, rel=0.55)


@pytest.mark.parametrize("wire", SHORT)
def test_rounding_never_takes_an_honest_update_over_the_servers_bound(make_study: Studies, wire: Wire) -> None:
    study = make_study(federation={"wire": wire, "smallest_declared_size": 60})
    layout = build(study).layout
    bound, plain = (
        norm_bound(each, 1, layout) for each in (study, make_study(federation={"smallest_declared_size": 60}))
    )
    direction = np.random.default_rng(0).standard_normal(layout.length)
    longest = (plain * direction / np.linalg.norm(direction)).astype(np.float32)
    chosen = encoding_for(study, layout, declared_size=60, round_number=1)
    for worst in (np.full(layout.length, 1 - 2.0**-53), OsRandomness().step().uniforms(layout.length)):
        assert np.linalg.norm(rounded(longest, chosen, worst)) <= bound


def test_a_nodes_rounding_is_never_the_same_twice_and_has_bits_of_its_own() -> None:
    source = OsRandomness()
    assert source.step().uniforms(4).tolist() != source.step().uniforms(4).tolist()
    stream = KeyStream(bytes(range(32)))
    assert len({stream._stream(purpose, 64) for purpose in ("sampling", "noise", "rounding")}) == 3
