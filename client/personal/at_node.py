"""A node's personal adapter of one run: made from the finished one, kept in a private folder, exported by its operator.

It holds the node's records without any protection. So it lies in a folder that no link's container mounts, no socket
and no page answers for it, no backup takes it along, and it goes with the records when these are withdrawn.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError
from safetensors.numpy import load, save

from client.personal.training import WARNING, Personal, personalise_without_privacy
from client.vault.ledger.rows import ApprovedRun
from client.vault.review.node_files import NodeFiles
from client.vault.review.review import StudyReview
from client.vault.training.randomness import OsRandomness
from client.vault.training.round_trainer import device_for
from shared.adapted_model.evaluation import evaluate
from shared.adapted_model.export import CARD_FILE, write_adapter
from shared.adapted_model.finished import read_packed
from shared.adapted_model.frozen_activations import FrozenActivations, activations_for
from shared.adapted_model.model import AdaptedModel, build
from shared.errors import SettingsError
from shared.files import append_private, private_folder, write_atomically, write_private
from shared.protocol.messages import Vector
from shared.records.ragged import Records
from shared.study.declaration import Study

log = logging.getLogger(__name__)
ADAPTER_FILE, FACTS_FILE = "adapter.safetensors", "personal.json"
Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PersonalFacts:
    """Facts about a personal adapter, for the operator's eyes only."""

    run: str
    dataset: str
    study: str
    study_sha256: str
    time: str
    training_records: int
    passes: int
    """Over the records; 0: no pass was better than the finished adapter, which is kept as it came."""
    metric: str
    higher_is_better: bool
    held_out: int
    """Records that both were measured on; neither was trained on them."""
    before: dict[str, float]
    """Every metric of the finished adapter."""
    after: dict[str, float]
    """The same of the personal one."""
    warning: str = WARNING


def make_personal(node: NodeFiles, run: str, exported: Path, say: Say) -> PersonalFacts:
    """Train a run's finished adapter further on the records that this node trained on, WITHOUT PRIVACY, and keep it.

    Guarantee: nothing of it enters the ledger, whose height is told to the server.
    Guarantee: nothing of it is kept once its run was ended.

    Args:
        node: whose records they are.
        run: of the ledger.
        exported: folder of the finished adapter, as the server's operator hands it out.
        say: receives what is being done, and how many of how many steps are done.

    Raises:
        SettingsError: no such run, or its records are gone or went meanwhile, or the adapter is another study's.
        DataError: there are too few records.
    """
    approved, (study, _, finished) = _approved(node, run), read_packed(exported)
    if study.sha256 != approved.study_sha256:
        raise SettingsError(
            f"Expected the finished adapter of {run}, {exported} holds one of another study, {study.sha256[:16]}.",
            hint="The server's operator exports it: fedvault-server export RUN FOLDER",
        )
    performance = node.settings.performance
    study = node.approved.study(run).model_copy(update={"performance": performance})
    say("Reading the records", 0, 0)
    dataset = node.dataset(approved.dataset)
    records, held_out = StudyReview(node).materialise(study, dataset, run), node.approved.holdout(run)
    model = build(study, node.base_files(study)).to(device_for(performance.device))
    if finished.shape != (model.layout.length,):
        raise SettingsError(f"Expected an adapter of {model.layout.length} numbers, got {finished.shape}.")
    private_folder(node.folders.personal)
    with TemporaryDirectory(dir=node.folders.personal) as scratch:
        activations = partial(_activations, model, study, Path(scratch))
        before = _measured(model, study, held_out, finished, activations)
        made = personalise_without_privacy(
            study,
            model,
            records,
            finished,
            declared_size=node.approved.declared_size(run),
            randomness=OsRandomness(),
            activations=activations,
            on_pass=lambda number: say(f"Training {run} further without privacy, pass", number, 0),
        )
        after = _measured(model, study, held_out, made.adapter, activations)
    facts = PersonalFacts(
        run=run,
        dataset=approved.dataset,
        study=study.study.name,
        study_sha256=study.sha256,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        training_records=len(records),
        passes=made.passes,
        metric=model.kind.metric,
        higher_is_better=model.kind.higher_is_better,
        held_out=int(held_out.usable.sum()),
        before=before,
        after=after,
    )
    _keep(node, facts, made)
    return facts


def export_personal(node: NodeFiles, run: str, folder: Path) -> PersonalFacts:
    """Write a personal adapter as a PEFT folder, with the warning in its card, to a place that the operator names.

    Raises:
        SettingsError: there is none of this run, or the folder is there.
    """
    approved = _approved(node, run)
    place = node.personal_folder(run)
    try:
        facts = PersonalFacts(**json.loads((place / FACTS_FILE).read_text()))
        adapter = load((place / ADAPTER_FILE).read_bytes())["adapter"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        raise SettingsError(
            f"Expected a personal adapter of {run}, got none.",
            hint=f"Make one: fedvault-node personalise {run} --adapter FOLDER",
        ) from None
    if folder.exists():
        raise SettingsError(f"Expected a new folder, {folder} is there.")
    study = node.approved.study(run)
    base_files = node.base_files(study)
    private_folder(folder)
    more = {"without_privacy": WARNING}
    write_adapter(study, build(study, base_files), adapter, folder, base_fingerprint=base_files.fingerprint, more=more)
    write_atomically(folder / CARD_FILE, card(study, facts).encode())
    log.warning("The personal adapter of %s was exported. It is %s.", approved.dataset, WARNING)
    return facts


def card(study: Study, facts: PersonalFacts) -> str:
    """Return the card beside an exported personal adapter, as Markdown."""
    figures = "\n".join(f"| {name} | {facts.before[name]:.4g} | {facts.after[name]:.4g} |" for name in facts.before)
    return f"""---
base_model: {study.model.shown_source}
library_name: peft
tags: [without-privacy, fedvault]
---

# {study.study.name}: a personal adapter

**This adapter was {WARNING}.** Whoever has it can find out what stands in
single records. It is for the eyes of the node that made it. What may be shared is the finished adapter it began with.

It was made by `fedvault-node personalise` at {facts.time}, from the finished adapter of run `{facts.run}` of study
`{facts.study_sha256}`, on the {facts.training_records} records of this node that the run trained on.

| on {facts.held_out} held-out records of this node | finished adapter | this one |
|---|---|---|
{figures}
"""


def in_words(facts: PersonalFacts) -> list[str]:
    """Return what a terminal shows of a personal adapter."""
    before, after = facts.before.get(facts.metric), facts.after.get(facts.metric)
    if before is None or after is None:
        measured = "No usable record is held out, so nothing says whether it is better."
    else:
        better = "higher" if facts.higher_is_better else "lower"
        records = f"{facts.metric} on {facts.held_out} held-out records ({better} is better)"
        measured = f"{records}: {before:.4g} before, {after:.4g} after."
    passes = f"{facts.passes} passes over {facts.training_records} records."
    if not facts.passes:
        passes = "No pass over the records was better on those that chose: the finished adapter is kept as it came."
    return [measured, passes, f"This adapter is {WARNING}."]


def _approved(node: NodeFiles, run: str) -> ApprovedRun:
    state = node.ledger_state()
    if run not in state.runs:
        names = ", ".join(state.runs) or "none"
        raise SettingsError(f"Expected a run of the ledger ({names}), got {run!r}.")
    if state.is_over(run):
        raise SettingsError(f"Expected a run whose records are still here, those of {run} went when it was ended.")
    return state.runs[run]


def _activations(model: AdaptedModel, study: Study, folder: Path, records: Records) -> FrozenActivations:
    return activations_for(model, records, next(model.parameters()).device, study.performance, folder)


def _measured(
    model: AdaptedModel,
    study: Study,
    held_out: Records,
    adapter: Vector,
    activations: Callable[[Records], FrozenActivations],
) -> dict[str, float]:
    if not held_out.usable.any():
        return {}
    model.eval()
    model.load(adapter)
    opened = activations(held_out)
    tokens = study.performance.micro_batch_tokens
    result = evaluate(model, held_out, tokens=tokens, batch_of=opened.batch, sizes=opened.sizes(), with_loss=True)
    return {"loss": result.loss, **model.kind.metrics(result.evidence)}


def _keep(node: NodeFiles, facts: PersonalFacts, made: Personal) -> None:
    place = node.personal_folder(facts.run)
    with node.open_ledger() as ledger:  # held while it is written: what ends the run waits, and then finds it
        if ledger.state.is_over(facts.run):
            raise SettingsError(f"Expected a run whose records are still here, {facts.run} was ended meanwhile.")
        private_folder(place)
        # the facts last: they say that the adapter is there
        write_private(place / ADAPTER_FILE, save({"adapter": made.adapter}))
        write_private(place / FACTS_FILE, (json.dumps(asdict(facts), indent=1) + "\n").encode())
        line = {"time": facts.time, "kind": "personalise", "run": facts.run, "dataset": facts.dataset}
        append_private(node.folders.personal_log, json.dumps(line) + "\n")
    log.warning("A personal adapter of %s was made. It is %s.", facts.run, WARNING)
