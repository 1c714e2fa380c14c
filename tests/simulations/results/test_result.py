"""What a result holds survives JSON, whatever the metric came to."""

import json
import math
from pathlib import Path

import pytest

from shared.errors import SettingsError
from simulations.results.result import Quality, RoundResult, WorstSite, read_result
from simulations.results.summary import worst_of


def quality(value: float) -> Quality:
    return Quality(
        metric="perplexity",
        higher_is_better=False,
        value=value,
        metrics={"perplexity": value, "loss": 9.5},
        per_site={"north": value, "south": 3.0},
        worst_site=WorstSite(site="north", value=value),
    )


@pytest.mark.parametrize("value", [23.5, math.inf, -math.inf])
def test_every_dump_is_strict_json_and_reads_back(value: float) -> None:
    found = quality(value)
    for dumped in (found.model_dump(), found.model_dump(mode="json"), json.loads(found.model_dump_json())):
        assert Quality.model_validate_json(json.dumps(dumped, allow_nan=False)) == found
        assert Quality.model_validate(dumped) == found


def test_what_is_not_a_number_stays_so() -> None:
    written = quality(math.nan).model_dump_json()
    again = Quality.model_validate_json(written)
    assert '"value":"nan"' in written
    assert math.isnan(again.value) and math.isnan(again.worst_site.value) and math.isnan(again.per_site["north"])


@pytest.mark.parametrize(
    ("per_site", "higher_is_better", "worst"),
    [
        ({"a": 0.9, "b": 0.4, "c": 0.4}, True, "b"),
        ({"a": 3.0, "b": 7.0, "c": 7.0}, False, "b"),
        ({"a": 3.0, "b": math.inf}, False, "b"),
        ({"a": math.inf, "b": 0.5}, True, "b"),
        ({"a": 0.1, "b": math.nan}, True, "b"),
        ({"a": 9.0, "b": math.nan}, False, "b"),
    ],
)
def test_the_worst_site_follows_the_direction(per_site: dict[str, float], higher_is_better: bool, worst: str) -> None:
    found = worst_of(per_site, higher_is_better=higher_is_better)
    assert found.site == worst


def test_a_result_of_an_older_schema_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"schema_version": 1}')
    with pytest.raises(SettingsError, match="schema_version Input should be 2") as refused:
        read_result(tmp_path / "result.json")
    assert "run the scenario again" in refused.value.hint


def test_a_round_of_an_older_version_is_read_by_todays_names() -> None:
    rejected = [{"site": "north", "reason": "norm"}]
    plain = {"round": 1, "outcome": "skipped", "seconds": 1.0, "accepted": 0, "refused": [], "missing": []}
    older = RoundResult.model_validate(plain | {"quarantined": rejected, "evaluation": None})
    assert older.rejected == rejected and "quarantined" not in older.model_dump()
