"""Count a model's predictions for held-out records by cell, and put noise on the counts.

Each record is predicted by itself, in the one shape that its own length gives: with others in its batch, matrix kernels
could compute other bits, and another's presence would show in its prediction.

| a record | counts |
|---|---|
| that can be used | as much as its unit has for each such record, in one cell |
| that cannot be used | nothing |
| that makes the model raise | nothing; the log says so |
| where memory, a disk or the device gives out | the whole evaluation fails: what is left of them is no record's own |
"""

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from client.vault.training.randomness import StepRandomness
from shared.adapted_model.model import AdaptedModel
from shared.errors import may_be_a_records_own
from shared.privacy.releases import CountsRelease
from shared.private_evaluation.cells import Cells, Outcome
from shared.private_evaluation.counts import counts
from shared.private_evaluation.noise import noise_scale
from shared.records.batches import collate
from shared.records.ragged import Records
from shared.study.declaration import Study
from shared.study.evaluation import has_one_label
from shared.tasks.kind import OutputKind

log = logging.getLogger(__name__)


def noisy_histogram(exact: NDArray[np.int64], release: CountsRelease, randomness: StepRandomness) -> NDArray[np.int64]:
    """Put noise on every count, whatever it is.

    Guarantee: every count gets its own discrete Gaussian noise of exactly the scale that was charged, empty cells too.
    """
    return exact + randomness.discrete_gaussian(len(exact), noise_scale(release))


def exact_histogram(
    study: Study,
    model: AdaptedModel,
    records: Records,
    groups: NDArray[np.int64],
    *,
    on_record: Callable[[], None] = lambda: None,
) -> NDArray[np.int64]:
    """Count held-out records by cell, each predicted by itself. Must not leave without noise.

    Guarantee: a held-out unit changes nothing but its own share of the counts, whoever else is held out.
    Guarantee: what memory, a disk or a device lacks takes no record away: it ends the evaluation as a whole.

    Args:
        study: with an evaluation.
        model: holds the adapter that is evaluated.
        records: held out, with their units.
        groups: index of each record's group (records,).
        on_record: called before each record; an exception from it ends the evaluation.
    """
    cells, one_label, raised = Cells.of(study), has_one_label(study.task), 0
    places, units = list[int](), list[int]()
    model.eval()
    for index in np.flatnonzero(records.usable).tolist():
        on_record()
        try:
            with torch.no_grad():
                outcome = _outcome(model, records, index, one_label=one_label)
            place = cells.index(int(groups[index]), outcome)
        except Exception as error:
            if not may_be_a_records_own(error):
                raise
            # what one record makes raise is that record's: it counts nothing, and changes nobody else's count
            log.debug("A held-out record could not be evaluated.", exc_info=True)
            raised += 1
            continue
        places.append(place)
        units.append(index if records.units is None else int(records.units[index]))
    if raised:
        log.warning("%d held-out records made the model raise; they were not counted.", raised)
    return counts(places, units, length=cells.length)


def _outcome(model: AdaptedModel, records: Records, index: int, *, one_label: bool) -> Outcome:
    """Return the model's answer to one record, beside the truth."""
    kind, device = model.kind, next(model.parameters()).device
    batch = collate(records, [index], kind.fills, device)
    if not one_label or not isinstance(kind, OutputKind):
        (evidence,) = kind.evidence(model, batch, records, [index])
        return Outcome(kind.score(evidence))
    outputs = model.outputs(batch)
    (evidence,) = kind.compare(outputs, batch, records, [index])
    prediction, truth = evidence
    confidence = float(torch.softmax(outputs.double(), dim=1).max())
    return Outcome(kind.score(evidence), confidence, truth, prediction)
