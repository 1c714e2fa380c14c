"""Write `report.html`: a result on one page that needs no network."""

import html
import json
import math
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from shared.files import write_atomically
from shared.study.sections import RECORD
from simulations.results.metric_names import axis_range, direction, drawable, heading, shown, words
from simulations.results.result import ArmResult, Result
from simulations.results.wording import (
    covered,
    difference_cells,
    differences_title,
    evaluated_at,
    headline,
    held_out,
    in_points,
    notes,
    spent_in_words,
    unit_of,
)

SHOWN_SITES = 20
UNPROTECTED = "#b3261e"
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:980px;margin:2rem auto;padding:0 1rem;color:#1d2329;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.35rem .6rem;border-bottom:1px solid #dde2e7;text-align:right}
th:first-child,td:first-child{text-align:left;white-space:nowrap}
.box{border-left:4px solid #8a5a00;background:#fff7e6;padding:.6rem 1rem;margin:1rem 0}
.unprotected td{color:#b3261e}.study td{font-weight:600}
pre{background:#f4f6f8;padding:1rem;overflow:auto;font-size:.8rem}
"""
SEEDED = (
    "Simulation: sampling and noise were seeded so that the run can be repeated. A real node draws them from its "
    "operating system; what a seeded run releases protects nobody."
)


def write_report(result: Result, path: Path) -> None:
    """Write a result as one self-contained HTML file."""
    write_atomically(path, page(result).encode())


def page(result: Result) -> str:
    """Return the whole page; every text from outside is escaped."""
    name = text(result.scenario["study"]["name"])
    metric, higher_is_better = result.final.metric, result.final.higher_is_better
    body = [
        f"<h1>{name}</h1>",
        f"<p>{_headline(result)}</p>",
        f"<p>{_guarantee(result)}</p>",
        f'<p class="box">{SEEDED}</p>' if any(p.seeded_noise for p in result.privacy.values()) else "",
        *(f'<p class="box">{text(warning)}</p>' for warning in result.warnings),
        f"<h2>{text(heading(metric, f'on {held_out(result)}', higher_is_better=higher_is_better))}</h2>",
        _arms_table(result),
        *(f"<p>{text(note)}</p>" for note in notes(result)),
        *_compared(result),
        plot("arms", _arms_figure(result), heading(metric, "of every arm, overall and of the worst site")),
        "<h2>Round by round</h2>",
        plot("rounds", _rounds_figure(result), heading(metric, "after every round, overall and by site")),
        "<h2>Privacy spent</h2>",
        _privacy_table(result),
        "<h2>What it took</h2>",
        plot("bytes", _bytes_figure(result), "Bytes a node sends per round, beside what other ways would send"),
        plot("timing", _timing_figure(result), "Seconds by phase"),
        "<h2>The study</h2>",
        f"<p>SHA-256 <code>{text(result.study_sha256)}</code>, FedVault {text(result.fedvault_version)}.</p>",
        f"<pre>{text(json.dumps(result.scenario, indent=1, ensure_ascii=False))}</pre>",
    ]
    return document(result.scenario["study"]["name"], body)


def document(title: str, body: list[str]) -> str:
    """Return a page that needs no network, from parts that are HTML already."""
    head = f'<meta charset="utf-8"><title>{text(title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _compared(result: Result) -> list[str]:
    if not result.differences:
        return []
    title = differences_title(result)
    return [
        f"<h2>{text(title)}</h2>",
        plot("differences", _differences_figure(result), title),
        f"<p>{covered(result)}</p>",
    ]


def _headline(result: Result) -> str:
    epsilon, value = result.arms["federated"].epsilon, shown(result.final.value)
    parts = [f"Federated under ε = {epsilon:.2f}: {_metric(result)} <b>{value}</b>", *map(text, headline(result))]
    return "; ".join(parts) + "."


def _guarantee(result: Result) -> str:
    first = next(iter(result.privacy.values()))
    worst = max(spent.epsilon_rdp for spent in result.privacy.values())
    return (
        f"For every site and every {text(first.unit)} x it trained on, everything the site sent in this study is "
        f"({worst:.3f}, {first.delta:g})-differentially private with respect to adding or removing x ({first.sampling} "
        f"sampling, {first.accountant} accounting), as far as the noise is secret."
    )


def _arms_table(result: Result) -> str:
    sites = list(result.final.per_site)[:SHOWN_SITES]
    unit = unit_of(result)
    counted = ["rows"] if unit == RECORD else ["rows", f"{unit}s"]
    minus = {name: f"{value} ({ends})" for name, (value, ends) in difference_cells(result).items()}
    compared = ["federated minus it (95 %)"] if minus else []
    counts_by_site = [f"{site} ({count})" if (count := evaluated_at(result, site)) else site for site in sites]
    header = ["arm", *counted, "q", "steps", "seconds", "ε", "all", *compared, *counts_by_site, "worst site"]
    rows = []
    for name, arm in result.arms.items():
        kind = "study" if name == "federated" else "" if arm.private else "unprotected"
        title, count, *others = _arm_cells(arm, sites, [minus.get(name, "-")] if minus else [])
        counts = [count] if unit == RECORD else [count, str(arm.units or "-")]
        rows.append((kind, [title, *counts, *others]))
    more = len(result.final.per_site) - len(sites)
    return _table(header, rows) + (f"<p>{more} more sites are in result.json.</p>" if more > 0 else "")


def _arm_cells(arm: ArmResult, sites: list[str], minus: list[str]) -> list[str]:
    return [
        arm.title,
        str(arm.rows or "-"),
        "-" if arm.sampling_rate is None else f"{arm.sampling_rate:g}",
        str(arm.steps or "-"),
        f"{arm.seconds:.0f}",
        "no protection" if not arm.private else spent_in_words(arm),
        shown(arm.quality.value),
        *minus,
        *(shown(arm.quality.per_site[site]) for site in sites),
        f"{shown(arm.quality.worst_site.value)} ({arm.quality.worst_site.site})",
    ]


def _privacy_table(result: Result) -> str:
    header = ["site", "ε (RDP, the guarantee)", "ε (PRV)", "δ", "unit", "adjacency", "sampling", "clipping", "σ", "q"]
    rows = [
        (
            "",
            [
                site,
                f"{p.epsilon_rdp:.3f}",
                "-" if p.epsilon_prv is None else f"{p.epsilon_prv:.3f}",
                f"{p.delta:g}",
                p.unit,
                p.adjacency,
                p.sampling,
                f"{p.clipping}, {p.clip_norm:g}",
                f"{p.noise_multiplier:g}",
                f"{p.sampling_rate:g}",
                str(p.steps),
                str(p.declared_size),
            ],
        )
        for site, p in list(result.privacy.items())[:SHOWN_SITES]
    ]
    return _table([*header, "steps", "declared size"], rows)


def _table(header: list[str], rows: list[tuple[str, list[str]]]) -> str:
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr class="{kind}">' + "".join(f"<td>{text(cell)}</td>" for cell in cells) + "</tr>" for kind, cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _arms_figure(result: Result) -> go.Figure:
    arms = list(result.arms.values())
    titles = [text(arm.title) for arm in arms]
    hatched = {"shape": ["" if arm.private else "/" for arm in arms]}
    values = [arm.quality.value for arm in arms]
    worst = [arm.quality.worst_site.value for arm in arms]
    figure = go.Figure(
        [
            go.Bar(name="all", x=titles, y=[*map(drawable, values)], marker={"pattern": hatched}),
            go.Bar(name="worst site", x=titles, y=[*map(drawable, worst)], marker={"pattern": hatched}),
        ]
    )
    limits = axis_range([*values, *worst], higher_is_better=result.final.higher_is_better)
    return figure.update_layout(barmode="group", yaxis_title=_metric(result), yaxis_range=limits)


def _differences_figure(result: Result) -> go.Figure:
    scale, unit = (100, "points") if in_points(result) else (1, words(result.final.metric))
    drawn = [(result.arms[name], one) for name, one in result.differences.items() if math.isfinite(one.value)]
    ends = [(one.low, one.high) if math.isfinite(one.low) else (one.value, one.value) for _, one in drawn]
    above = [scale * (high - one.value) for (_, high), (_, one) in zip(ends, drawn, strict=True)]
    below = [scale * (one.value - low) for (low, _), (_, one) in zip(ends, drawn, strict=True)]
    figure = go.Figure(
        go.Scatter(
            x=[scale * one.value for _, one in drawn],
            y=[text(arm.title) for arm, _ in drawn],
            mode="markers",
            marker={"size": 10},
            error_x={"type": "data", "symmetric": False, "array": above, "arrayminus": below},
        )
    )
    figure.add_vline(0, line_color="#8a9199")
    return figure.update_layout(xaxis_title=f"federated is better by ({unit})", yaxis_autorange="reversed", height=300)


def _rounds_figure(result: Result) -> go.Figure:
    evaluated = [r for r in result.rounds if r.evaluation is not None]
    numbers = [r.round for r in evaluated]
    overall = [drawable(r.evaluation.value) for r in evaluated if r.evaluation]
    figure = go.Figure([go.Scatter(name="all sites", x=numbers, y=overall, line={"width": 4})])
    for site in list(result.final.per_site)[:SHOWN_SITES]:
        values = [drawable(r.evaluation.per_site[site]) for r in evaluated if r.evaluation]
        figure.add_scatter(name=text(site), x=numbers, y=values)
    reference = result.arms.get("without-privacy")
    if reference is not None and drawable(reference.quality.value) is not None:
        note = "WITHOUT PRIVACY (reference)"
        figure.add_hline(reference.quality.value, line_dash="dot", line_color=UNPROTECTED, annotation_text=note)
    return figure.update_layout(xaxis_title="round", yaxis_title=_metric(result))


def _metric(result: Result) -> str:
    return text(words(result.final.metric) + direction(higher_is_better=result.final.higher_is_better))


def _bytes_figure(result: Result) -> go.Figure:
    sizes = result.bytes
    # results of before there was a choice know one size only
    sent = sizes.up_by_wire or {"float32": sizes.up_per_node_round}
    bars = {f"this adapter, {wire}": size for wire, size in sent.items()}
    if sizes.full_lora_up is not None:
        bars["LoRA A and B, all layers"] = sizes.full_lora_up
    bars["the whole model"] = sizes.full_model_up
    names, values = list(bars), list(bars.values())
    figure = go.Figure(go.Bar(x=values, y=names, orientation="h", text=[f"{v / 1024:,.0f} KiB" for v in values]))
    return figure.update_layout(xaxis_type="log", xaxis_title="bytes per node and round, up", height=300)


def _timing_figure(result: Result) -> go.Figure:
    figure = go.Figure(go.Bar(x=list(result.timing.values()), y=[text(n) for n in result.timing], orientation="h"))
    return figure.update_layout(xaxis_title="seconds", height=320, yaxis_autorange="reversed")


def plot(name: str, figure: go.Figure, description: str) -> str:
    """Return a figure as HTML, for `document`."""
    figure.update_layout(template="plotly_white", margin={"l": 40, "r": 20, "t": 20, "b": 40})
    plain = figure.to_plotly_json()
    data = json.dumps([plain["data"], plain["layout"]], cls=_Encoder, allow_nan=False).replace("<", "\\u003c")
    draw = f"Plotly.newPlot('{name}',...{data},{{displayModeBar:false,responsive:true}})"
    return f'<div id="{name}" role="img" aria-label="{text(description)}"></div><script>{draw}</script>'


def text(value: str) -> str:
    """Escape what comes from outside."""
    return html.escape(str(value))


class _Encoder(json.JSONEncoder):
    def default(self, o: object) -> object:
        return o.to_plotly_json() if hasattr(o, "to_plotly_json") else list(o)  # type: ignore[call-overload]
