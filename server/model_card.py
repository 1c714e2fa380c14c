"""The card beside a finished adapter: what it was trained on, by how many, under which privacy, how to load it."""

from pathlib import Path

from server.checkpoints import State
from server.how_to_load import code
from shared.files import write_atomically
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.planning import plan
from shared.study import Study
from shared.tasks.kinds import task_kind


def write_card(folder: Path, run: str, study: Study, state: State) -> None:
    """Write README.md, as model hubs show it."""
    write_atomically(folder / "README.md", card(run, study, state).encode())


def card(run: str, study: Study, state: State) -> str:
    """The card as Markdown.

    What a node has spent is computed from the rounds that the server saw it in; the node's own ledger may say more (a
    round that was lost on the way is paid for all the same) and its receipt says what.
    """
    accepted = [set(record["accepted"]) for record in state.records]
    nodes = sorted(set().union(*accepted)) if accepted else []
    planned = plan(study.privacy, steps=study.total_steps)
    lines = []
    for number, node in enumerate(nodes, start=1):
        rounds = sum(node in round_ for round_ in accepted)
        spent = epsilon_rdp([planned.release(rounds * study.training.local_steps)], study.privacy.delta)
        lines.append(f"| {number} | {rounds} | {spent:.3f} | {study.privacy.delta:g} |")
    measured = state.evaluations.get(str(state.round)) or {}
    figures = ", ".join(f"{name} {value:.3f}" for name, value in measured.items() if isinstance(value, float))
    return f"""---
base_model: {study.model.source}
library_name: peft
tags: [federated-learning, differential-privacy, fedvault]
---

# {study.study.name}

{study.study.description or "No description was declared."}

A `{study.adapter.method}` adapter for `{study.model.source}` (fingerprint `{study.model.fingerprint}`), trained by
{len(nodes)} organisations in {len(state.records)} rounds as run `{run}` of study `{study.sha256}`. Task:
{_task(study)}.

## Privacy

For every organisation and every {study.privacy.unit} it trained on, all that it sent in this run is differentially
private with respect to adding or removing that {study.privacy.unit}: Gaussian noise of {planned.noise_multiplier:.3f}
times the clipping norm on Poisson samples at rate {planned.sampling_rate:g}, {study.total_steps} steps at most. The
declared budget is epsilon {study.privacy.epsilon:g} at delta {study.privacy.delta:g}. As the server saw it:

| organisation | rounds | epsilon | delta |
|---|---|---|---|
{chr(10).join(lines)}

A round that was lost on its way is paid for by the node all the same: its own receipt is what counts. What this does
not cover: one person with records at two organisations spends at both.

## Measured

{figures or "The server's operator measured nothing."}

## How to load

`base` is the folder of `{study.model.source}`, `adapter` this one:

```python
{code(study, merged=False)}```

After `fedvault-server export {run} model --merge`, `model` is a complete one:

```python
{code(study, merged=True)}```

With FedVault, which checks that the base model is the one this was trained on:

```python
from server.export import load_finished

print(load_finished("adapter").predict({{{_asked(study)}}}))
```
"""


def _asked(study: Study) -> str:
    kind = task_kind(study.task)
    asked = [column for column in kind.columns if column.name not in kind.answers]
    cells = {column.name: "Path(file).read_bytes()" if column.media else '"…"' for column in asked}
    return ", ".join(f'"{name}": [{cell}]' for name, cell in cells.items())


def _task(study: Study) -> str:
    labels: tuple[str, ...] = getattr(study.task, "labels", ())
    return f"{study.task.kind}{', labels in order: ' if labels else ''}{', '.join(f'`{label}`' for label in labels)}"
