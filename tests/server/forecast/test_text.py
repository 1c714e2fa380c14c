"""Warnings in words: what else would be spent for nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from server.forecast.forecast import forecast_study, with_evaluation
from server.forecast.text import facts, rows, verdict, warnings
from shared.adapted_model.adapters import Layout
from shared.privacy.signal_to_noise import Prospect
from shared.study.declaration import Study

LAYOUT = Layout((("base.a.lora_B", (32, 8)), ("base.b.lora_B", (32, 8)), ("head.weight", (2, 32)), ("head.bias", (2,))))


def test_a_large_site_learns_that_it_would_do_better_alone(make_study: Callable[..., Study]) -> None:
    def unequal(**sizes: int) -> list[str]:
        study = make_study(privacy={"epsilon": 8.0})
        typical = forecast_study(study, LAYOUT, sizes).typical_size.mean
        forecast = forecast_study(
            make_study(privacy={"epsilon": 8.0}, federation={"typical_size": typical}), LAYOUT, sizes
        )
        assert forecast.prospect is Prospect.ENOUGH
        return [line for line in warnings(forecast) if "times the ratio" in line]

    assert unequal(a=9000, b=9000) == unequal(a=9000, b=6000) == []
    (line,) = unequal(large=9000, small=500, smaller=300)
    assert line.startswith("large alone has 1.6 times the ratio of the mean of all")
    assert line.endswith("fewer than federation.quorum: they may do better without this study.")
    (line,) = unequal(large=9000, larger=9500, **{f"small {number}": 900 for number in range(6)})
    assert line.startswith("larger, large alone have")
    assert line.endswith("set federation.smallest_declared_size to 9000.")


def test_an_adapter_alone_is_not_said_to_learn_nothing(make_study: Callable[..., Study]) -> None:
    adapter = Layout(LAYOUT.tensors[:2])
    noisy = make_study(privacy={"epsilon": 0.1})
    forecast = forecast_study(noisy, adapter, {"a": 200, "b": 200})
    assert forecast.ratio < 1 and forecast.prospect is Prospect.UNKNOWN
    assert verdict(forecast, [])[0].startswith("Only training shows whether this learns")
    assert not any("nothing but noise" in line for line in warnings(forecast))
    with_a_head = forecast_study(noisy, LAYOUT, {"a": 200, "b": 200})
    assert with_a_head.prospect is Prospect.NOTHING


def test_a_typical_size_is_suggested_where_sizes_differ_and_gains_what_the_forecast_says(
    make_study: Callable[..., Study],
) -> None:
    sizes = {"large": 9000, "small": 2000}
    own = forecast_study(make_study(privacy={"epsilon": 8.0}), LAYOUT, sizes)
    assert own.typical_size.mean == 5500
    assert any("with federation.typical_size = 5500" in line and "1.99 times" in line for line in warnings(own))
    typical = forecast_study(
        make_study(privacy={"epsilon": 8.0}, federation={"typical_size": own.typical_size.mean}), LAYOUT, sizes
    )
    assert typical.ratio == pytest.approx(own.ratio * own.typical_size.gain) and own.typical_size.gain > 1.9
    assert typical.typical_size.gain == pytest.approx(1) and not warnings(typical)
    assert [node.divisor for node in typical.nodes] == pytest.approx([550, 550])
    assert [node.study_ratio for node in typical.nodes] == [node.study_ratio for node in own.nodes]
    assert forecast_study(make_study(), LAYOUT, {"a": 300, "b": 300}).typical_size.gain == pytest.approx(1)


def test_the_interval_of_a_private_evaluation_is_said_beforehand(make_study: Callable[..., Study]) -> None:
    groups = {"column": "sex", "values": ["women", "men"]}
    study = make_study(evaluation={"epsilon": 1.0, "subgroup": groups})
    forecast = with_evaluation(forecast_study(study, LAYOUT, {"large": 9000, "small": 300}), study)
    words = facts(forecast)["private evaluation"]
    assert words.startswith("once, epsilon 1 for units held out, noise of ")
    assert "accuracy of all nodes ± 0.0" in words and "gap of subgroups ± 0.0" in words and "confusion ± 0.0" in words
    of_nodes = {row["node"]: row["evaluated to"] for row in rows(forecast)}
    assert of_nodes["large"].startswith("± 0.0") and of_nodes["small"] == "not shown"
    without = with_evaluation(forecast_study(make_study(), LAYOUT, {"large": 9000}), make_study())
    assert without.evaluation is None and "private evaluation" not in facts(without)
    assert "evaluated to" not in rows(without)[0]


def test_of_one_sum_only_the_interval_of_all_nodes_is_said_beforehand(make_study: Callable[..., Study]) -> None:
    def forecast(mode: str) -> dict[str, Any]:
        federation = {"secure_sum": mode, "typical_size": 300}
        study = make_study(evaluation={"epsilon": 1.0}, federation=federation, training={"local_steps": 1})
        sizes = {f"node {number}": 300 for number in range(10)}
        made = with_evaluation(forecast_study(study, LAYOUT, sizes), study)
        assert {row["evaluated to"] for row in rows(made)} == {"only in the sum"}
        assert "on each count of the sum, which alone is opened" in facts(made)["private evaluation"]
        assert made.evaluation is not None
        return made.evaluation.as_dict()

    masked, shared = forecast("masked"), forecast("shared")
    # ten nodes of which seven are honest in every sum share what each would add by itself
    assert masked["sigma"] / shared["sigma"] == pytest.approx(7**0.5, rel=0.02)
    assert shared["by_cells"]["right-wrong"] < masked["by_cells"]["right-wrong"]
    assert not any(one["scope"] in ("site", "worst site") for one in shared["estimates"])


def test_a_choice_among_evaluations_is_said_beforehand(make_study: Callable[..., Study]) -> None:
    def words(size: int, **choice: object) -> str:
        study = make_study(evaluation={"epsilon": 8.0, "rounds": [1, 2]} | choice)
        return facts(with_evaluation(forecast_study(study, LAYOUT, {"a": size, "b": size}), study))[
            "private evaluation"
        ]

    assert "the best of them by accuracy is handed out, known to ± 0.0" in words(9000, keep="best")
    assert "the run ends after 1 in a row that are not better by about 0.0" in words(9000, stop_after=1)
    assert "handed out" not in words(9000) and "not compared" in words(20, keep="best")
