"""Writes the card beside a simulation's adapter: a server's, with sites for organisations and every arm's figures."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from server.export.adapter import CARD_FILE, STUDY_FILE
from server.export.model_card import page
from shared.evidence.audit_result import sentences
from shared.files import write_atomically
from shared.privacy.in_words import in_words
from shared.private_evaluation.wording import choice_lines, markdown
from simulations.experiment.scenario import Scenario
from simulations.results.metric_names import heading, shown
from simulations.results.result import ArmResult, Result, evaluated_adapter
from simulations.results.trouble import sentences as trouble_sentences
from simulations.results.wording import covered, held_out, notes, records_of, spent_in_words

SHOWN_SITES = 20
NOT_PRIVATE = (
    "**This is a simulation on one machine, and not private.** Sampling and noise came from a seed, so that the run "
    "can be repeated. Whoever knows the seed can take the noise off again. If real people stand behind the records, do "
    "not hand this adapter out as a protected one."
)
MERGING = """`merge` writes a complete model, which plain transformers loads:

```python
from pathlib import Path

from server.export.adapter import merge

merge(Path("adapter"), Path("model"))
```

Then `model` is read like this:"""


PARTED = {
    "column": "by a column of theirs",
    "grouped": "by several values of a column of theirs each",
    "iid": "evenly",
    "size": "in unequal shares",
    "dirichlet": "skewed by label",
    "pathological": "by a few labels each",
    "shards": "in shards of sorted rows",
    "continuous": "by a number of theirs",
    "file": "as a file says",
    "plug-in": "by a plug-in",
}
"""How records became sites, by partition.by."""


def write_card(folder: Path, scenario: Scenario, result: Result) -> None:
    """Write the card as README.md beside the adapter in `folder`."""
    fingerprint = json.loads((folder / STUDY_FILE).read_text())["base_fingerprint"]
    write_atomically(folder / CARD_FILE, card(scenario, result, fingerprint).encode())


def card(scenario: Scenario, result: Result, fingerprint: str) -> str:
    """Return the card as Markdown.

    Args:
        scenario: as it was run.
        result: of the run.
        fingerprint: of the base model.
    """
    return page(
        scenario.as_study(),
        fingerprint=fingerprint,
        trained_by=f"{len(result.privacy)} simulated sites in {len(result.rounds)} rounds of",
        sections=[
            NOT_PRIVATE,
            _data(scenario, result),
            _privacy(scenario, result),
            *_trouble(result),
            *_audit(result),
            _measured(result),
            *_counted(result),
        ],
        merging=MERGING,
        tags=("federated-learning", "simulation", "fedvault"),
    )


def _counted(result: Result) -> list[str]:
    evaluated, choice = evaluated_adapter(result), result.choice
    lines = [f"## Measured at the sites, privately\n\n{markdown(evaluated)}"] if evaluated else []
    chosen = [] if choice is None else ["\n".join(choice_lines(choice, len(result.rounds)))]
    return [*lines, *chosen]


def _data(scenario: Scenario, result: Result) -> str:
    data = scenario.simulation.data
    # a folder or file by its name alone: its place is this machine's
    source = data.source if data.source.startswith("dataset:") else Path(data.source).name
    own = data.split_column or data.test or data.validation
    held_back = f"{100 * data.holdout:g} % of every site's were" if not own else "What the data name for testing was"
    rows = [(name, f"{site.train:,}", f"{site.holdout:,}") for name, site in result.data.items()]
    return (
        f"## Data\n\nRecords of `{source}`, dealt out to sites {PARTED[data.partition.by]}. {held_back} "
        f"held out and never trained on.\n\n{_table(('site', 'trained on', 'held out'), rows)}"
    )


def _privacy(scenario: Scenario, result: Result) -> str:
    privacy = scenario.privacy
    rows = [
        # rounded up: it is a bound
        (name, str(spent.steps), f"{math.ceil(spent.epsilon_rdp * 1000) / 1000:.3f}", f"{spent.delta:g}")
        for name, spent in result.privacy.items()
    ]
    first = next(iter(result.privacy.values()))
    return (
        f"## Privacy\n\nIn a deployment, where every node draws its noise in secret, the same study would have spent "
        f"this for every {privacy.unit} of a site: Gaussian noise of {first.noise_multiplier:.3f} times the clipping "
        f"norm on Poisson samples at rate {first.sampling_rate:g}, with respect to adding or removing one.\n\n"
        f"{_table(('site', 'steps', 'epsilon', 'delta'), rows)}\n\n{in_words(privacy.epsilon, privacy.unit)}"
    )


def _trouble(result: Result) -> list[str]:
    lines = trouble_sentences(result.trouble)
    return ["## Trouble on purpose\n\n" + " ".join(lines)] if lines else []


def _audit(result: Result) -> list[str]:
    return ["## Audit\n\n" + " ".join(sentences(result.audit))] if result.audit else []


def _measured(result: Result) -> str:
    final = result.final
    title = heading(final.metric, f"on {held_out(result)}", higher_is_better=final.higher_is_better)
    rows = [_arm(arm) for arm in result.arms.values()]
    lines = [covered(result)] if result.differences else []
    return "\n\n".join(
        [
            f"## Measured\n\n{title}; this adapter is `{result.arms['federated'].title}`:",
            _table(("arm", "epsilon", f"all {records_of(result)}", "worst site"), rows),
            *([" ".join([*lines, *notes(result)])] if lines or notes(result) else []),
        ]
    )


def _arm(arm: ArmResult) -> Sequence[str]:
    spent = "none" if not arm.private else spent_in_words(arm)
    worst = arm.quality.worst_site
    return arm.title, spent, shown(arm.quality.value), f"{worst.site} {shown(worst.value)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_row(header), "|".join(["", *["---"] * len(header), ""]), *map(_row, rows[:SHOWN_SITES])]
    more = len(rows) - SHOWN_SITES
    return "\n".join(lines) + (f"\n\n{more} more are in result.json." if more > 0 else "")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
