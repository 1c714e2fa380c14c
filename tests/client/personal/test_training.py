"""A personal adapter: trained without noise on a node's own records, chosen on some that it never saw."""

import logging
from typing import Any

import numpy as np
import pytest

from client.personal import training
from client.personal.training import FEWEST_UNITS, ONE_IN, PASSES, WARNING, Personal, personalise_without_privacy
from client.vault.training.randomness import OsRandomness
from shared.adapted_model.frozen_activations import FrozenActivations
from shared.adapted_model.model import AdaptedModel, build, initial_adapter
from shared.errors import DataError
from shared.records.ragged import Records, with_units
from shared.study.declaration import Study
from simulations.sites.seeded_randomness import SeededRandomnessForSimulation

OPENED = list[Records]


def personal(study: Study, model: AdaptedModel, records: Records, opened: OPENED | None = None) -> Personal:
    def activations(some: Records) -> FrozenActivations:
        if opened is not None:
            opened.append(some)
        return FrozenActivations(model, some, next(model.parameters()).device)

    return personalise_without_privacy(
        study,
        model,
        records,
        initial_adapter(study),
        declared_size=len(records),
        randomness=SeededRandomnessForSimulation(1, "personal"),
        activations=activations,
    )


@pytest.fixture
def study(make_study: Any) -> Study:
    sections = {"adapter": {"method": "head-only"}, "privacy": {"sampling_rate": 0.5}}
    made: Study = make_study(
        training={"local_steps": 1, "learning_rate": 0.5},
        federation={"secure_sum": "shared", "typical_size": 60},
        **sections,
    )
    return made


def test_it_learns_what_the_finished_adapter_did_not_and_says_what_it_is(
    study: Study, make_records: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model, records = build(study), make_records(60)
    with caplog.at_level(logging.WARNING):
        made = personal(study, model, records)
    assert 1 <= made.passes <= PASSES and made.steps == 2 * made.passes
    assert made.adapter.any() and np.isfinite(made.adapter).all()
    assert WARNING in caplog.text and "WITHOUT PRIVACY" in WARNING and "never share" in WARNING


def test_the_same_seed_makes_the_same_adapter(study: Study, make_records: Any) -> None:
    model, records = build(study), make_records(40)
    assert personal(study, model, records).adapter.tobytes() == personal(study, model, records).adapter.tobytes()


@pytest.mark.guarantee(
    "none of the records that choose the personal adapter is trained on, and no unit is on both sides."
)
def test_one_unit_in_five_chooses_and_is_not_trained_on(make_study: Any, make_records: Any) -> None:
    study = make_study(adapter={"method": "head-only"}, privacy={"unit": "patient", "sampling_rate": 0.5})
    records, opened = make_records(60), list[Records]()
    by_patient = with_units(records, np.arange(60) // 2)
    personal(study, build(study), by_patient, opened)
    trained, chooses = ({some.content(i) for i in range(len(some))} for some in opened)
    assert not trained & chooses and len(trained) + len(chooses) == 60
    assert opened[1].unit_count == 30 // ONE_IN and opened[0].unit_count == 30 - 30 // ONE_IN


def test_where_no_pass_is_better_the_finished_adapter_is_kept(
    study: Study, make_records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_score", lambda *_: 1.0)
    made = personal(study, build(study), make_records(40))
    assert (made.passes, made.steps) == (0, 0) and made.adapter.tobytes() == initial_adapter(study).tobytes()


def test_of_the_best_passes_the_latest_is_kept(
    study: Study, make_records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.6, 0.7, 0.4, 0.7, *(PASSES - 4) * [0.6]])
    monkeypatch.setattr(training, "_score", lambda *_: next(scores))
    assert personal(study, build(study), make_records(40)).passes == 4


def test_too_few_units_are_said(study: Study, make_records: Any) -> None:
    with pytest.raises(DataError, match=f"at least {FEWEST_UNITS} units .*, got 9"):
        personal(study, build(study), make_records(FEWEST_UNITS - 1))


def test_a_nodes_own_randomness_draws_the_batches(study: Study, make_records: Any) -> None:
    noise = training.WithoutNoise(OsRandomness()).step().discrete_gaussian(1000, 50.0)
    assert not noise.any()
