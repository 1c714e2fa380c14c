"""Answers of the vault as parts of a page: pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.pages.blocks import Card, Cards, Cell, Code, Facts, Picture, Row, Table
from shared.pages.charts import Line, Part, gauge, lines
from shared.privacy.in_words import best_guess, in_words

STATES = {"runs": ("Runs", "good"), "starting": ("Starting", "warn"), "stopped": ("Stopped", "bad")}
"""Words and tone of a node's state; any other needs somebody to look."""
ANSWERS = {"nothing yet": ("waits for you", "warn"), "no": ("rejected", "bad"), "yes": ("approved", "good")}
FINDINGS = {"ok": ("ok", "good"), "warn": ("look", "warn"), "FAILED": ("failed", "bad")}
OF_TRAINING = ("time", "run", "round", "train_seconds", "clip_fraction", "records_raised")
MOST_SERIES = 4
GAUGE_PX = 420.0
"""Narrow enough for a phone."""


def moment(time: str) -> str:
    """Return a time as a person reads it."""
    return f"{time[:16].replace('T', ' ')} UTC"


def state_badge(state: str) -> tuple[str, str]:
    """Return words and tone for a node's state."""
    return STATES.get(state, ("Needs a look", "bad"))


def answer_badge(answer: str) -> tuple[str, str]:
    """Return words and tone for what was said to a study."""
    return ANSWERS.get(answer, (answer, "plain"))


def finding_badge(state: str) -> tuple[str, str]:
    """Return words and tone for a check's state."""
    return FINDINGS.get(state, (state, "plain"))


def account_gauge(name: str, account: Mapping[str, Any]) -> Picture:
    """Draw what a dataset has spent and earmarked, and what is left."""
    limit = account["limit"]
    parts = [
        Part("Spent", account["spent"], f"{account['spent']:.3f}"),
        Part("Earmarked", account["earmarked"], f"{account['earmarked']:.3f}"),
        Part("Left", account["left"], f"{account['left']:.3f} of {limit:g}", rest=True),
    ]
    return gauge(f"Epsilon of {name}", parts, limit=limit, width=GAUGE_PX)


def cost_gauge(summary: Mapping[str, Any], spent: float) -> Picture:
    """Draw what a study would cost beside what came before it."""
    limit, before, after = summary["epsilon_limit"], summary["epsilon_before"], summary["epsilon_after"]
    left = max(0.0, limit - after)
    parts = [
        Part("Spent", spent, f"{spent:.3f}"),
        Part("Earmarked for others", before - spent, f"{max(0.0, before - spent):.3f}"),
        Part("This study", after - before, f"{after - before:.3f}"),
        Part("Left for all studies to come", left, f"{left:.3f} of {limit:g}", rest=True),
    ]
    return gauge(f"Epsilon of {summary['dataset']}", parts, limit=limit, width=GAUGE_PX)


def cost_words(summary: Mapping[str, Any]) -> list[str]:
    """Say in plain words what a study's epsilon means."""
    epsilon, unit = summary["epsilon_alone"], summary["unit"]
    words = [
        in_words(epsilon, unit),
        f"With all that came before it, the guess is right {best_guess(summary['epsilon_after'])} of the time at best.",
    ]
    if summary["epsilon_per_study"] is not None:
        words.append(f"Your policy lets one study spend {summary['epsilon_per_study']:g} at most.")
    return words


def leaving(summary: Mapping[str, Any]) -> Facts:
    """List what of this house would leave it."""
    sent = "a noisy adapter update"
    if summary["measures"]:
        sent = "noisy second moments of the model's features in round 1, then noisy adapter updates"
    weight = summary["weight"]
    rows: list[tuple[str, Cell]] = [
        ("In each round", f"{sent}: {summary['bytes_per_round']:,} bytes as {summary['wire']}"),
        ("Rounds", f"{summary['rounds']}, with {summary['steps']} private steps in all"),
        ("Trained", summary["trains"]),
        ("Columns that are read", ", ".join(summary["columns"])),
        ("Noise", f"multiplier {summary['noise_multiplier']:.3g}, sampling rate {summary['sampling_rate']:.3g}"),
        ("Nothing else", f"that depends on a {summary['unit']} leaves: no counts, no losses, no times, no messages"),
    ]
    return Facts(rows if weight == 1 else [*rows, ("Weight in the mean", f"{weight:.2g} times a typical site")])


def stated(study: Mapping[str, Any]) -> Facts:
    """List who asks for a study, and on what ground."""
    names = {"requester": "Asked for by", "contact": "Contact", "legal_basis": "Legal basis", "retention": "Kept"}
    return Facts([(label, study[key]) for key, label in names.items() if study.get(key)])


def ways(sizes: Mapping[str, int], wire: str) -> Table:
    """Compare ways to send an update."""
    rows = [Row([way, f"{size:,}"], "ours" if way.endswith(f" {wire}") else "plain") for way, size in sizes.items()]
    return Table(["A node would send in a round", "bytes"], rows)


def peers(named: Sequence[Mapping[str, Any]]) -> Table:
    """List the other nodes of a secure sum, and which of their keys were compared."""
    rows = [
        Row(
            [
                peer["name"],
                "pinned" if peer["pinned"] else "not pinned: counts as a colluder",
                Code(peer["key_sha256"]),
            ],
            "plain" if peer["pinned"] else "warning",
        )
        for peer in named
    ]
    return Table(["Peer", "its key here", "fingerprint"], rows)


def records(facts: Mapping[str, Any], unit: str) -> Cards:
    """Count the records that a study would train on, for the operator's eyes."""
    labels = ", ".join(f"{label} {count}" for label, count in facts["labels"].items())
    return Cards(
        [
            Card("To train on", f"{facts['train']:,}", labels or f"of {facts['units']:,} {unit}s"),
            Card("Held out", f"{facts['holdout']:,}", "never trained on"),
            Card("Left out", f"{facts['dropped']:,}", "copies, or beyond what a study takes"),
            Card("Unusable", f"{facts['unusable']:,}", "they contribute nothing"),
        ]
    )


def measured(rows: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Draw what received adapters did on this node's held-out records, a drawing for each run that was measured."""
    runs = dict.fromkeys(str(row["run"]) for row in rows if _figures(row))
    return [_run_measured(run, [row for row in rows if row["run"] == run]) for run in list(runs)[-2:]]


def accounts(datasets: Mapping[str, Mapping[str, Any]]) -> Table:
    """List every account."""
    rows = [
        Row(
            [
                f"{name} (withdrawn)" if account["withdrawn"] else name,
                f"{account['spent']:.3f}",
                f"{account['earmarked']:.3f}",
                f"{account['left']:.3f}",
                f"{account['limit']:g}",
                f"{account['delta']:g}",
                ", ".join(account["shares_records_with"]) or "nobody",
            ]
        )
        for name, account in datasets.items()
    ]
    return Table(["Dataset", "spent", "earmarked", "left", "limit", "δ", "shares records with"], rows)


def runs(known: Mapping[str, Mapping[str, Any]]) -> Table:
    """List every run that was approved."""
    rows = [
        Row(
            [
                name,
                run["dataset"],
                f"{run['paid']} of {run['rounds']}",
                str(run["earmarked"]),
                str(run["more_rounds_fit"]),
            ]
        )
        for name, run in known.items()
    ]
    return Table(["Run", "dataset", "rounds paid", "still earmarked", "more rounds that fit"], rows)


def _run_measured(run: str, rows: Sequence[Mapping[str, Any]]) -> Picture:
    figures = set[str]().union(*map(_figures, rows))
    # a loss has no place on the axis of fractions, where there are any
    names = sorted(figures - {"loss"}) or sorted(figures)
    series = [
        Line(
            name.replace("_", " "),
            [(float(row["round"]), float(row[name])) for row in rows if isinstance(row.get(name), int | float)],
            "ours" if number == 0 else "plain",
        )
        for number, name in enumerate(names[:MOST_SERIES])
    ]
    return lines(f"Quality of {run} on held-out records here", series, across="round", up="on held-out records")


def _figures(row: Mapping[str, Any]) -> set[str]:
    """Return the names of what was measured on held-out records."""
    return {name for name, value in row.items() if isinstance(value, int | float)} - set(OF_TRAINING)
