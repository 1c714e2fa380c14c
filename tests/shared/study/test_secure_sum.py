"""Which studies go with a secure sum, and the numbers of nodes that open one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.protocol.versions import SAYS_SECURE_SUM, SPOKEN
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study, recorded
from shared.study.sections import Federation
from shared.study.secure_sum import sum_sizes

Studies = Callable[..., Study]
SHARED: dict[str, Any] = {"secure_sum": "shared", "typical_size": 50}
ONE_STEP = {"local_steps": 1}


def test_a_study_without_a_secure_sum_says_nothing_of_it(make_study: Studies) -> None:
    declared = make_study().canonical_json()
    assert "secure_sum" not in declared and "threshold" not in declared and "colluders" not in declared
    assert "secure_sum" not in make_study().model_dump()["federation"]
    assert make_study().versions.oldest < SAYS_SECURE_SUM and make_study().sent_as == "float32"


@pytest.mark.parametrize("mode", ["masked", "shared"])
def test_older_nodes_refuse_a_secure_sum_by_version(make_study: Studies, mode: str) -> None:
    study = make_study(federation=SHARED | {"secure_sum": mode, "threshold": 4, "colluders": 1}, training=ONE_STEP)
    assert study.versions == (SAYS_SECURE_SUM, SPOKEN.newest) and study.sent_as == "int64"
    assert recorded(json.loads(study.canonical_json()), where="test") == study
    assert study.sha256 != make_study(federation={"typical_size": 50}, training=ONE_STEP).sha256


RULES: dict[str, tuple[dict[str, Any], str]] = {
    "several steps": ({"federation": SHARED, "training": {"local_steps": 3}}, "local_steps = 1.*rounds = 9"),
    "no typical size": (
        {"federation": {"secure_sum": "shared"}, "training": ONE_STEP},
        "needs federation.typical_size",
    ),
    "whitening": ({"federation": SHARED, "training": ONE_STEP | {"whitening": True}}, "training.whitening"),
    "cohort": ({"federation": {"secure_sum": "masked", "cohort": 3}}, "no federation.cohort"),
    "cohort, shared": ({"federation": SHARED | {"cohort": 3}, "training": ONE_STEP}, "no federation.cohort"),
    "wire": ({"federation": {"secure_sum": "masked", "wire": "int8"}}, "federation.wire = 'int8'"),
    "lora": ({"federation": {"secure_sum": "masked"}, "adapter": {"method": "lora"}}, "adapter.method = 'lora'"),
    "dora": ({"federation": SHARED, "training": ONE_STEP, "adapter": {"method": "dora"}}, "adapter.method = 'dora'"),
    "threshold alone": ({"federation": {"threshold": 3}}, "threshold only goes with federation.secure_sum"),
    "colluders alone": ({"federation": {"colluders": 1}}, "colluders only goes with federation.secure_sum"),
    "threshold of one honest node": (
        {"federation": {"secure_sum": "masked", "threshold": 4, "colluders": 3}},
        "the sum of one honest node hides nothing",
    ),
    "threshold of colluders": (
        {"federation": {"secure_sum": "masked", "threshold": 3, "colluders": 3}},
        "above federation.colluders",
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_what_does_not_go_with_a_secure_sum_is_refused_by_name(make_study: Studies, name: str) -> None:
    sections, words = RULES[name]
    with pytest.raises(SettingsError, match=words):
        make_study(**sections)


@pytest.mark.parametrize("method", ["ffa-lora", "ia3", "head-only"])
def test_every_linear_adapter_goes_with_it(make_study: Studies, method: str) -> None:
    assert make_study(federation=SHARED, training=ONE_STEP, adapter={"method": method}).adapter.linear


@pytest.mark.guarantee("two sums of one round cannot both be opened by nodes that collude: 2 t > n + c.")
def test_the_rule_on_the_number_of_nodes() -> None:
    by_nodes = {n: sum_sizes(n, Federation()) for n in range(3, 101)}
    assert {n: (by_nodes[n].threshold, by_nodes[n].colluders, by_nodes[n].honest) for n in (3, 4, 5, 10, 36, 100)} == {
        3: (3, 1, 2),
        4: (3, 1, 2),
        5: (4, 1, 3),
        10: (8, 1, 7),
        36: (29, 3, 26),
        100: (80, 10, 70),
    }
    assert all(2 * sizes.threshold > n + sizes.colluders and sizes.honest >= 2 for n, sizes in by_nodes.items())
    own = sum_sizes(30, Federation(secure_sum="shared", threshold=25, colluders=4))
    assert (own.threshold, own.colluders, own.honest) == (25, 4, 21)


@pytest.mark.parametrize(
    ("nodes", "threshold", "colluders"),
    [(2, None, None), (10, 5, None), (6, 8, None), (4, 4, 3), (101, None, None)],
)
def test_numbers_that_do_not_hold_are_refused(nodes: int, threshold: int | None, colluders: int | None) -> None:
    with pytest.raises(SettingsError):
        sum_sizes(nodes, Federation(secure_sum="masked", threshold=threshold, colluders=colluders))


def test_the_rule_is_the_one_that_nodes_take_rosters_by() -> None:
    for nodes in range(3, 101):
        sizes, thresholds = sum_sizes(nodes, Federation()), Thresholds.by_default(nodes)
        assert (sizes.threshold, sizes.colluders) == (thresholds.threshold, thresholds.colluders)


@pytest.mark.parametrize(("quorum", "nodes", "threshold"), [(2, 10, 8), (9, 10, 9), (10, 10, 10), (12, 10, 10)])
def test_no_sum_of_fewer_nodes_than_the_quorum_is_opened(quorum: int, nodes: int, threshold: int) -> None:
    for own in (None, 8):
        assert sum_sizes(nodes, Federation(rounds=1, quorum=quorum, threshold=own)).threshold == threshold
