"""Writes the card beside a finished adapter: base model, organisations, privacy, figures, and how to load it."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.export.loading_code import code
from server.export.plugins import section
from server.export.trust import trust_setting
from server.private_evaluation.results import RunEvaluations
from server.rounds.checkpoints import State
from shared.errors import SettingsError
from shared.evidence.facts import PluginUse
from shared.files import write_atomically
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.collusion import collusion
from shared.privacy.in_words import in_words
from shared.privacy.noise_schedule import schedule_of
from shared.privacy.releases import SharedGaussian
from shared.private_evaluation.noise import all_counts
from shared.private_evaluation.wording import choice_lines, markdown
from shared.protocol.messages import Status
from shared.study.declaration import Study
from shared.study.secure_sum import sum_sizes
from shared.tasks.registry import task_kind

LOADING = "## How to load"
PAID_FOR = frozenset({Status.FAILED.name.lower(), Status.LOST.name.lower()})
"""Codes that a node answers with after it has paid; every other refusal comes before."""
Asked = Sequence[tuple[int, Sequence[int]]]
"""Round and nodes of every time that a round was begun."""


def write_card(
    folder: Path,
    run: str,
    study: Study,
    state: State,
    *,
    names: Mapping[int, str],
    asked: Asked = (),
    secure_sum: Mapping[str, Any] | None = None,
    evaluations: RunEvaluations | None = None,
    plugins: Sequence[PluginUse] = (),
) -> None:
    """Write the card as README.md, which model hubs show."""
    text = card(
        run, study, state, names=names, asked=asked, secure_sum=secure_sum, evaluations=evaluations, plugins=plugins
    )
    write_atomically(folder / "README.md", text.encode())


def rounds_paid(
    records: Sequence[dict[str, Any]], *, names: Mapping[int, str], asked: Asked = ()
) -> dict[str, set[int]]:
    """Return the rounds that each node may have paid for: all it was asked in, but those it refused in time.

    Guarantee: a round that failed, was lost, came late or was rejected counts like one that was accepted.

    Args:
        records: of finished rounds.
        names: of nodes by number; one node may have had several.
        asked: every time that a round was begun: one whose process died may have been paid for.
    """
    attempts = [*asked, *((record["round"], record["asked"]) for record in records)]
    times = Counter((number, node) for number, nodes in asked for node in nodes)
    refused = {
        (record["round"], entry["node"])
        for record in records
        for entry in record["refused"]
        if entry["status"] not in PAID_FOR and times[record["round"], entry["node"]] <= 1
    }
    paid: dict[str, set[int]] = {}
    for number, nodes in attempts:
        for node in nodes:
            rounds = paid.setdefault(names.get(node, str(node)), set())
            if (number, node) not in refused:
                rounds.add(number)
    return {name: rounds for name, rounds in paid.items() if rounds}


def card(
    run: str,
    study: Study,
    state: State,
    *,
    names: Mapping[int, str],
    asked: Asked = (),
    secure_sum: Mapping[str, Any] | None = None,
    evaluations: RunEvaluations | None = None,
    plugins: Sequence[PluginUse] = (),
) -> str:
    """Return the card as Markdown; organisations are numbered, not named.

    A node's spending is the most that the server can tell: a round that was lost on the way is paid for nevertheless.
    What counts is the node's own signed receipt.
    """
    evaluated, choice = (None, None) if evaluations is None else (evaluations.of_adapter, evaluations.choice)
    number = state.round if choice is None else choice.handed_out(state.round)
    led_to_it = [record for record in state.records if record["round"] <= number]
    trained = {names.get(node, str(node)) for record in led_to_it for node in record["accepted"]}
    measured = state.evaluations.get(str(number)) or {}
    # a secure sum asks its whole roster in every round
    nodes = max((len(record["asked"]) for record in state.records), default=0)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in measured.items() if isinstance(value, float))
    return page(
        study,
        fingerprint=str(study.model.fingerprint),
        trained_by=f"{len(trained)} organisations in {len(led_to_it)} rounds as run `{run}` of",
        sections=[
            _privacy(study, rounds_paid(state.records, names=names, asked=asked), nodes=nodes),
            *([f"## Trust\n\n{trust_setting(secure_sum)}"] if secure_sum else []),
            "## Measured\n\n" + (figures or "The server's operator measured nothing."),
            *([f"## Measured at the organisations\n\n{markdown(evaluated)}"] if evaluated else []),
            *(["## The choice among evaluations\n\n" + "\n".join(choice_lines(choice, state.round))] if choice else []),
            *section(plugins),
        ],
        merging=f"After `fedvault-server export {run} model --merge`, `model` is a complete one:",
        tags=("federated-learning", "differential-privacy", "fedvault"),
    )


def page(
    study: Study, *, fingerprint: str, trained_by: str, sections: Sequence[str], merging: str, tags: Sequence[str]
) -> str:
    """Return a card as Markdown: what the adapter is, what its trainer says of it, and how to load it.

    Args:
        study: as it was trained.
        fingerprint: of the base model.
        trained_by: who trained it, up to the words "study" and its hash.
        sections: on privacy, data and figures, each with its heading.
        merging: says how `model`, a complete one, is made.
        tags: for model hubs.
    """
    name = base_name(study)
    return f"""---
base_model: {name}
library_name: peft
tags: [{", ".join(tags)}]
---

# {study.study.name}

{study.study.description or study.study.purpose or "No description was declared."}

A `{study.adapter.method}` adapter for `{name}` (fingerprint `{fingerprint}`), trained
by {trained_by} study `{study.sha256}`. Task:
{_task(study)}.{_held(study)}

{(chr(10) * 2).join(sections)}

{LOADING}

`base` is the folder of `{name}`, `adapter` this one:

```python
{code(study, merged=False)}```

{merging}

```python
{code(study, merged=True)}```

With FedVault, which checks that the base model is the one this was trained on:

```python
from server.export.adapter import load_finished

print(load_finished("adapter").predict({{{_question(study)}}}))
```
"""


def base_name(study: Study) -> str:
    """Return the base model's name for everyone: of a whole path only the last part, since no other machine has it."""
    source = study.model.shown_source
    return Path(source).name if Path(source).expanduser().is_absolute() else source


def _privacy(study: Study, paid: Mapping[str, set[int]], *, nodes: int) -> str:
    schedule, lines = schedule_of(study), []
    for number, name in enumerate(sorted(paid), start=1):
        rounds = len(paid[name])
        spent = epsilon_rdp([schedule.release(rounds * study.training.local_steps)], study.privacy.delta)
        # rounded up: it is a bound
        lines.append(f"| {number} | {rounds} | {math.ceil(spent * 1000) / 1000:.3f} | {study.privacy.delta:g} |")
    return f"""## Privacy

For every organisation and every {study.privacy.unit} it trained on, all that it sent in this run is differentially
private with respect to adding or removing that {study.privacy.unit}: Gaussian noise of {schedule.noise_multiplier:.3f}
times the clipping norm on Poisson samples at rate {schedule.sampling_rate:g}, {study.total_steps} steps at most. The
declared budget is epsilon {study.privacy.epsilon:g} at delta {study.privacy.delta:g}.

{in_words(study.privacy.epsilon, study.privacy.unit)}
{_shared_noise(study, nodes)}
Each node's (epsilon, delta), at
most, from every round that it was asked for and did not refuse before it would have cost anything:

| organisation | rounds | epsilon | delta |
|---|---|---|---|
{chr(10).join(lines)}

Whether a round that never arrived was paid for, only the node knows: its own signed receipt says what it spent. What
this does not cover: one person with records at two organisations spends at both."""


def _shared_noise(study: Study, nodes: int) -> str:
    """Return a paragraph on noise that nodes share, and on what is left without it; empty for any other study."""
    release = schedule_of(study).release(study.total_steps)
    if not isinstance(release, SharedGaussian):
        return ""
    try:
        sizes = sum_sizes(nodes, study.federation)
    except SettingsError:
        return ""
    settled = release.with_nodes(sizes.nodes, sizes.threshold, sizes.colluders)
    promise = collusion(settled, study.privacy.delta, all_counts(study))
    return f"""
The organisations shared one noise, behind a secure sum: each added a part of it, which hides little by itself.
{promise.in_words} A person with records at two organisations spends more than twice as much.
"""


def _question(study: Study) -> str:
    kind = task_kind(study.task)
    asked = [column for column in kind.columns if column.name not in kind.answers]
    cells = {column.name: "Path(file).read_bytes()" if column.media else '"…"' for column in asked}
    return ", ".join(f'"{name}": [{cell}]' for name, cell in cells.items())


def _held(study: Study) -> str:
    """Say in which numbers the base model was held in training, and what loads it so; nothing in float32."""
    if study.model.base_weights == "float32":
        return ""
    quantised = (
        'quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
        "bnb_4bit_compute_dtype=torch.bfloat16)"
    )
    option = quantised if study.model.base_weights == "4bit" else "dtype=torch.bfloat16"
    return (
        f"\n\nWhile it was trained the base model was {study.model.held}. With weights as they were published, and "
        f"merged into them, it answers slightly otherwise; `from_pretrained(…, {option})` comes close to what was "
        "trained, and `load_finished` of FedVault computes it."
    )


def _task(study: Study) -> str:
    labels: tuple[str, ...] = getattr(study.task, "labels", ())
    return f"{study.task.kind}{', labels in order: ' if labels else ''}{', '.join(f'`{label}`' for label in labels)}"
