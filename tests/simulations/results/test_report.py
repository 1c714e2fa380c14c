"""The page and the tables: self-contained, escaped, honest."""

import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from shared.errors import SettingsError
from shared.evidence.signed_report import SignedReport, written
from simulations.results.report import over_seeds, quality_over_seeds, report_of, write_report
from simulations.results.result import (
    ArmResult,
    Bytes,
    Difference,
    Effect,
    Fairness,
    Quality,
    Result,
    RoundResult,
    SiteData,
    SitePrivacy,
    Subgroup,
    WorstSite,
    schema_markdown,
)
from simulations.results.tables import render
from tests.support.paths import ROOT

HOSTILE = "<script>alert(1)</script>&\"'[/red]"


def quality(site: str, value: float = 0.8, *, metric: str = "accuracy", higher_is_better: bool = True) -> Quality:
    return Quality(
        metric=metric,
        higher_is_better=higher_is_better,
        value=value,
        metrics={metric: value},
        per_site={site: value},
        worst_site=WorstSite(site=site, value=value),
    )


def arm(title: str, site: str, *, private: bool = True) -> ArmResult:
    return ArmResult(
        title=title,
        private=private,
        epsilon=2.9 if private else None,
        rows=100,
        units=40,
        sampling_rate=0.1,
        steps=6,
        seconds=1.0,
        quality=quality(site),
    )


@pytest.fixture
def result() -> Result:
    site = HOSTILE
    arms = {"federated": arm("federated", site), "without-privacy": arm("WITHOUT PRIVACY", site, private=False)}
    spent = SitePrivacy(
        epsilon_rdp=2.9,
        epsilon_prv=None,
        delta=1e-5,
        noise_multiplier=1.5,
        sampling_rate=0.1,
        steps=6,
        unit="record",
        adjacency="add or remove one",
        sampling="Poisson",
        accountant="RDP",
        clipping="automatic",
        clip_norm=1.0,
        declared_size=100,
        seeded_noise=True,
    )
    one = RoundResult(
        round=1,
        outcome="aggregated",
        seconds=1.0,
        accepted=2,
        rejected=[],
        refused=[],
        missing=[],
        evaluation=quality(site),
    )
    return Result(
        fedvault_version="0",
        study_sha256="a" * 64,
        scenario={"study": {"name": HOSTILE}},
        rounds=[one],
        final=quality(site),
        arms=arms,
        baselines={"without-privacy": arms["without-privacy"]},
        privacy={site: spent},
        bytes=Bytes(
            up_per_node_round=1024,
            down_per_node_round=1024,
            up_by_wire={"float32": 1024, "bfloat16": 512, "int8": 296},
            full_lora_up=9000,
            full_model_up=10**8,
        ),
        timing={"prepare": 1.0},
        differences={"without-privacy": Difference(value=-0.012, low=-0.03, high=0.004, unit="record", units=1234)},
        data={site: SiteData(rows=1, train=1, units=1, holdout=1240, evaluated=1234, dropped=0, unusable=0)},
        warnings=[HOSTILE],
    )


def measured(result: Result, found: Quality) -> Result:
    """The result with that quality everywhere."""
    arms = {name: arm.model_copy(update={"quality": found}) for name, arm in result.arms.items()}
    rounds = [entry.model_copy(update={"evaluation": found}) for entry in result.rounds]
    return result.model_copy(update={"final": found, "arms": arms, "rounds": rounds})


def page(*results: Result) -> str:
    return written(SignedReport(report_of(results)), "html").decode()


def text_of(result: Result) -> str:
    console = Console(width=80, record=True)
    render(result, console)
    return console.export_text()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


def test_page_is_self_contained_and_escapes_every_name(result: Result, tmp_path: Path) -> None:
    write_report(result, tmp_path / "report.html")
    written = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in written and "alert(1)" in written and len(written) < 300_000
    tags = Tags()
    tags.feed(written)
    assert not [attrs for _, attrs in tags.found if {"src", "href"} & set(attrs)]
    assert [tag for tag, _ in tags.found].count("script") == 1, "the figures, for programs"
    assert [tag for tag, _ in tags.found].count("svg") == 2, "arms and differences; one round makes no line"
    assert "{" not in written.split("</style>")[1].split("<script")[0], "no JSON for people"


def test_page_says_what_protects_whom_and_what_does_not(result: Result) -> None:
    written = page(result)
    for words in ("(2.900, 1e-05)-differentially private", "adding or removing", "WITHOUT PRIVACY", "seeded"):
        assert words in written


def test_tables_fit_eighty_columns_and_shout_where_nothing_protects(result: Result) -> None:
    named = result.model_copy(update={"warnings": [f"{HOSTILE}: 3 of 90 training records unusable."]})
    text = text_of(named)
    assert max(map(len, text.splitlines())) <= 80
    for words in ("WITHOUT PRIVACY is a reference", "noise was seeded", "none", "2.900", "3 of 90"):
        assert words in text


def test_a_share_is_titled_by_its_name_and_drawn_from_zero_to_one(result: Result) -> None:
    text, written = text_of(result), page(result)
    assert {"Accuracy on 1,234 held-out records", "Accuracy by site"} <= {line.strip() for line in text.splitlines()}
    assert "0.800" in text and "lower is better" not in text + written
    assert "Accuracy on 1,234 held-out records" in written and "<b>0.800</b>" in written
    assert ">0.00</text>" in written or ">0.0</text>" in written
    assert ">1.0</text>" in written


def heights(result: Result) -> list[float]:
    """Where the points of the line at the back stand in the drawing of rounds."""
    (drawing,) = [one for one in page(result).split("<svg") if 'aria-label="Round by round"' in one]
    points = drawing.split('<polyline points="')[1].split('"')[0]
    return [float(point.split(",")[1]) for point in points.split()]


def test_other_arms_are_drawn_round_by_round_where_they_were_measured(result: Result) -> None:
    """Without curves, the arm without privacy stands at the level of its last figure."""
    rounds = [result.rounds[0].model_copy(update={"round": number}) for number in (1, 2, 3)]
    flat = result.model_copy(update={"rounds": rounds})
    curve = {number: quality("a", value) for number, value in ((1, 0.2), (2, 0.9), (3, 0.4))}
    arms = {name: one.model_copy(update={"curve": curve}) for name, one in flat.arms.items() if name != "federated"}
    measured_all = flat.model_copy(update={"arms": {"federated": flat.arms["federated"], **arms}})
    levels = [heights(one) for one in (flat, measured_all)]
    assert len(set(levels[0])) == 1 and len(levels[0]) == 2
    assert levels[1][1] < levels[1][2] < levels[1][0], "higher values stand further up"


def test_an_error_says_that_lower_is_better_and_has_an_axis_of_its_own(result: Result) -> None:
    perplexity = measured(result, quality(HOSTILE, 23.456, metric="perplexity", higher_is_better=False))
    text, written = text_of(perplexity), page(perplexity)
    assert "Perplexity on 1,234 held-out records (lower is better)" in text and "23.5" in text
    assert "Perplexity (lower is better) on 1,234 held-out records" in written and "<b>23.5</b>" in written
    assert ">1.0</text>" not in written and "accuracy" not in (text + written).lower()


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_is_named_in_tables_and_left_out_of_plots(result: Result, value: float) -> None:
    overflown = measured(result, quality("north", value, metric="perplexity", higher_is_better=False))
    written = page(overflown)
    assert f"north {value}" in text_of(overflown) and f"<b>{value}</b>" in written
    assert f">{value}</text>" in written, "beside the place of its bar"


def test_a_metrics_name_is_escaped(result: Result) -> None:
    hostile = measured(result, quality("north", metric=HOSTILE))
    assert "<script>alert" not in page(hostile)
    assert "[/red] by site" in text_of(hostile)


def test_every_field_of_the_result_says_what_it_means() -> None:
    written = schema_markdown()
    assert "| None |" not in written and "`epsilon_rdp`" in written
    assert (ROOT / "simulations" / "RESULT.md").read_text() == written


def test_a_unit_of_many_rows_is_counted_beside_them_and_named(result: Result) -> None:
    assert "arm rows steps" in " ".join(text_of(result).split()) and "patients" not in text_of(result) + page(result)
    spent = {site: one.model_copy(update={"unit": "patient"}) for site, one in result.privacy.items()}
    by_patient = result.model_copy(update={"privacy": spent})
    text, written = " ".join(text_of(by_patient).split()), page(by_patient)
    assert "arm rows patients steps" in text and "Privacy spent: patient, add or remove one" in text
    assert "every patient x it trained on" in written


def test_bytes_are_shown_by_encoding_and_an_older_result_shows_the_one_it_has(result: Result) -> None:
    console = Console(record=True, width=100)
    render(result, console)
    assert "float32 1.0 KiB / bfloat16 0.5 KiB / int8 0.3 KiB" in console.export_text()
    assert "this adapter, int8" in page(result)
    older = result.model_copy(update={"bytes": result.bytes.model_copy(update={"up_by_wire": {}})})
    assert "this adapter, float32" in page(older) and "this adapter, int8" not in page(older)
    render(older, console)
    assert "by federation.wire" not in console.export_text()


def test_differences_have_their_interval_in_points_and_say_what_it_covers(result: Result) -> None:
    text, written = text_of(result), page(result)
    assert "Federated minus each other arm, in points" in text and "-1.2 -3.0 to +0.4" in " ".join(text.split())
    assert "<td>-1.2 (-3.0 – +0.4)</td>" in written and "on 1,234 held-out records" in written
    assert "<b>+1.2 points</b>" in written and "95 %: -0.4 to +3.0" in written, "what privacy cost"
    assert all("not other seeds" in shown for shown in (text, written))


def test_differences_of_an_error_are_in_its_own_units(result: Result) -> None:
    perplexity = measured(result, quality(HOSTILE, 23.456, metric="perplexity", higher_is_better=False))
    text = " ".join(text_of(perplexity).split())
    assert "positive where it is better" in text and "-0.012 -0.030 to +0.004" in text


def test_an_older_result_without_differences_and_counts_is_shown_without_them(result: Result) -> None:
    counts = {site: data.model_copy(update={"evaluated": None}) for site, data in result.data.items()}
    older = result.model_copy(update={"differences": {}, "data": counts})
    text, written = text_of(older), page(older)
    assert "Accuracy on held-out records" in text and "federated minus" not in (text + written).lower()


def test_differences_over_units_of_many_rows_name_and_count_them(result: Result) -> None:
    one = result.differences["without-privacy"].model_copy(update={"unit": "patient", "units": 56})
    assert "Accuracy on 1,234 held-out records of 56 patients" in text_of(
        result.model_copy(update={"differences": {"without-privacy": one}})
    )


def of_seed(result: Result, seed: int, ours: float, other: float) -> Result:
    values = {"federated": ours, "without-privacy": other}
    arms = {
        name: arm.model_copy(update={"quality": quality(HOSTILE, values[name])}) for name, arm in result.arms.items()
    }
    scenario = result.scenario | {"simulation": {"seed": seed}}
    return result.model_copy(update={"arms": arms, "final": quality(HOSTILE, ours), "scenario": scenario})


def test_several_seeds_have_paired_intervals_over_them(result: Result) -> None:
    seeds = [of_seed(result, 1, 0.70, 0.71), of_seed(result, 2, 0.80, 0.82), of_seed(result, 3, 0.90, 0.93)]
    report, written = report_of(seeds), page(*seeds)
    assert report.answer is not None and report.answer.privacy_cost is not None
    assert report.answer.quality.value == pytest.approx(0.8) and report.answer.over_seeds == 3
    cost = report.answer.privacy_cost
    # mean 2, standard error 1/sqrt(3) and t = 4.303 with two degrees of freedom, all in points
    assert [100 * end for end in (cost.value, cost.low or 0, cost.high or 0)] == pytest.approx(
        [2, -0.484, 4.484], abs=1e-3
    )
    assert "mean of 3 seeds" in written and "Intervals are over 3 seeds" in written
    assert "not other seeds" not in written
    assert over_seeds([0.5]).low is None


def with_subgroups(result: Result, accuracy: float, effect: float) -> Result:
    known = Effect(value=effect, low=effect - 0.02, high=effect + 0.02)
    people = {
        HOSTILE: Subgroup(records=90, units=45, rates={"accuracy": accuracy}, effects={"accuracy": known}),
        "few": Subgroup(records=29, units=29, rates={"accuracy": 0.1234}),
    }
    ours = result.arms["federated"].model_copy(update={"fairness": {"sex": Fairness(subgroups=people, gaps={})}})
    return result.model_copy(update={"arms": result.arms | {"federated": ours}})


@pytest.mark.parametrize(("metric", "ends"), [("accuracy", (0.0, 1.0)), ("chrf", (-1.15, 2.65))])
def test_intervals_of_shares_end_at_zero_and_one(result: Result, metric: str, ends: tuple[float, float]) -> None:
    """Student's t over two seeds, 0.6 and 0.9: 0.75 and 12.7 times 0.15 on either side; chrF goes up to 100."""
    seeds = [measured(result, quality(HOSTILE, value, metric=metric)) for value in (0.6, 0.9)]
    one = quality_over_seeds(seeds, "federated")
    assert (one.value, one.low, one.high) == pytest.approx((0.75, *ends), abs=0.01)


def test_a_report_says_what_privacy_does_to_each_subgroup(result: Result) -> None:
    one = page(with_subgroups(result, 0.7654, -0.05))
    assert "Subgroup by subgroup" in one and "0.765" in one and "0.123" not in one
    assert "-5.0 (-7.0 – -3.0)" in one.replace("\u2212", "-")
    seeds = [with_subgroups(of_seed(result, seed, 0.7, 0.8), 0.7, effect) for seed, effect in ((1, -0.02), (2, -0.04))]
    (over,) = report_of(seeds).further.subgroups
    assert over.effect is not None and over.effect.value == pytest.approx(-0.03)
    assert over.effect.low == pytest.approx(-0.03 - 12.706 * 0.01, abs=1e-4)


def test_a_column_of_subgroups_that_a_seed_lacks_is_not_filled_with_anothers(result: Result) -> None:
    seeds = [with_subgroups(of_seed(result, 1, 0.7, 0.8), 0.7, -0.02), of_seed(result, 2, 0.7, 0.8)]
    assert report_of(seeds).further.subgroups == () and len(report_of(seeds[:1]).further.subgroups) == 1


def at_sites(result: Result, seed: int, ours: dict[str, float]) -> Result:
    """A run of that seed with these sites, whose quality they have in each round and arm."""
    made, worst = of_seed(result, seed, 0.7, 0.8), min(ours, key=lambda site: ours[site])
    at = {"per_site": ours, "worst_site": WorstSite(site=worst, value=ours[worst])}
    measured_there = made.final.model_copy(update=at | {"value": sum(ours.values()) / len(ours)})
    spent, counted = made.privacy[HOSTILE], made.data[HOSTILE].model_copy(update={"train": 10 * seed})
    sites = {"privacy": dict.fromkeys(ours, spent), "data": dict.fromkeys(ours, counted)}
    return measured(made.model_copy(update=sites), measured_there)


def test_worst_sites_and_curves_are_means_over_seeds(result: Result) -> None:
    seeds = [at_sites(result, 1, {"a": 0.9, "b": 0.5}), at_sites(result, 2, {"a": 0.6, "b": 1.0})]
    facts = report_of(seeds).simulation
    assert facts is not None
    ours = facts.arms[0]
    assert (ours.worst_site, ours.worst) == ("b, a", pytest.approx(0.55))
    assert [(one.round, one.value, one.worst) for one in facts.curve] == [(1, pytest.approx(0.75), pytest.approx(0.55))]
    ended_early = seeds[1].model_copy(update={"rounds": []})
    assert report_of([seeds[0], ended_early]).simulation.curve == ()  # type: ignore[union-attr]


def test_what_left_the_sites_is_a_mean_over_seeds(result: Result) -> None:
    one, two = at_sites(result, 1, {"a": 0.9, "b": 0.5}), at_sites(result, 2, {"a": 0.6, "b": 1.0, "c": 0.8})
    two = two.model_copy(update={"rounds": two.rounds * 3})
    alone, other, left = report_of([one]).left, report_of([two]).left, report_of([one, two]).left
    assert other.updates == 3 * alone.updates > 0 and left.updates == 2 * alone.updates
    assert alone.bytes is not None and left.bytes == 2 * alone.bytes > 0
    assert [facts.houses for facts in (alone, other, left)] == [2, 3, 2]


def test_a_site_that_a_seed_lacks_has_no_figure_and_is_named(result: Result) -> None:
    seeds = [at_sites(result, 1, {"a": 0.9, "b": 0.5}), at_sites(result, 2, {"a": 0.6, "c": 1.0})]
    for order in (seeds, seeds[::-1]):
        facts = report_of(order).simulation
        assert facts is not None and [(one.name, one.train) for one in facts.sites] == [("a", 15)]
        assert facts.sites[0].quality == pytest.approx(0.75)
        assert any("some seed lacks them: 2 (" in note for note in facts.notes)
    assert "some seed lacks" not in page(seeds[0])


def test_runs_that_differ_in_more_than_their_seed_make_no_report(result: Result) -> None:
    one, other = of_seed(result, 1, 0.7, 0.8), of_seed(result, 2, 0.7, 0.8)
    changed = other.model_copy(update={"scenario": other.scenario | {"privacy": {"epsilon": 1.0}}})
    for wrong in (
        [one, changed],
        [one, one],
        [one, other.model_copy(update={"arms": {"federated": other.arms["federated"]}})],
    ):
        with pytest.raises(SettingsError, match=r"simulation\.seed alone"):
            report_of(wrong)


def test_an_arm_with_a_note_has_it_below_the_tables_and_in_the_report(result: Result) -> None:
    noted = arm("majority class", HOSTILE, private=False).model_copy(update={"note": f"counts. {HOSTILE}"})
    by_name = result.model_copy(update={"arms": {"majority": noted} | result.arms})
    assert "majority class counts. <script>" in text_of(by_name)
    assert '<p class="small">majority class counts. &lt;script&gt;' in page(by_name)


def test_validation_records_are_called_so_wherever_held_out_ones_would_be(result: Result) -> None:
    chosen = result.model_copy(update={"evaluated_on": "validation"})
    text, written = " ".join(text_of(chosen).split()), page(chosen)
    for shown in (text, written):
        assert "Accuracy on 1,234 validation records" in shown and "other validation records" in shown
        assert "a share of the training records, for choosing settings" in shown
        assert "held-out records" not in shown
