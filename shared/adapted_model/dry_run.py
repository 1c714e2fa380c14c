"""Run a model before it is trained: once without weights, by shapes alone, and once with weights, on synthetic records.

What its own code refuses there, it would refuse for every record, after the first round was paid for.
"""

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from shared.errors import FedVaultError, SettingsError
from shared.records.batches import collate
from shared.records.ragged import Records
from shared.study.tasks import Task
from shared.tasks.fit import lengths_of

if TYPE_CHECKING:
    from shared.adapted_model.model import AdaptedModel

SHAPES_ONLY = torch.device("meta")
IN_ITS_FILES = "Look into its config.json and generation_config.json: what they name must be in the model's vocabulary."


def refuse_what_cannot_run(model: "AdaptedModel", task: Task) -> None:
    """Refuse a base model that cannot compute the task's losses; code that needs values proves nothing here.

    Args:
        model: built without weights.
        task: as the study declares it.

    Raises:
        SettingsError: the model's code refuses the record, or its shapes do not fit.
    """
    try:
        records = model.kind.synthetic(model.config, [max(lengths_of(task).values(), default=1)], variant=0)
        batch = collate(records, [0], model.kind.fills, SHAPES_ONLY)
        batch["unpadded"] = batch["usable"]  # models look into masks, and there are no values
        head: nn.Module = copy.deepcopy(model.head).to(SHAPES_ONLY)
        with torch.no_grad():
            features = model.kind.features(model.kind.run(model.base, batch), batch)
            model.kind.losses(model.kind.answer(head, features, batch), batch)
    except (FedVaultError, MemoryError):
        raise
    except Exception as error:  # each model's code has its own kinds
        if isinstance(error, NotImplementedError) or "meta" in str(error) or "device" in str(error):
            return  # it asks for values, or makes a tensor where there are some
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise SettingsError(
            f"Expected a base model that can run task.kind={task.kind!r}, got model type "
            f"{model.config.model_type!r}: {type(error).__name__}: {reason}",
            hint="Its own code refuses a record of this task: choose another base model, or another task.",
        ) from error


def rehearse(model: "AdaptedModel") -> None:
    """Compute losses and predictions of synthetic records, as training and evaluations do.

    Args:
        model: with weights.

    Raises:
        SettingsError: its code raises, its numbers are not finite, or it sees no difference between two records.
    """
    device = next(model.parameters()).device
    one, other = (model.kind.synthetic(model.config, [7, 5], variant=variant) for variant in (0, 1))
    try:
        with torch.no_grad():
            states = [_states(model, records, device) for records in (one, other)]
            batch = collate(one, [0, 1], model.kind.fills, device)
            losses = model.losses(batch)
            model.kind.evidence(model, batch, one, [0, 1])
    except (FedVaultError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each model's code has its own kinds
        raise _unable(model, f"{type(error).__name__}: {error}".splitlines()[0], IN_ITS_FILES) from error
    if not all(bool(each.isfinite().all()) for each in (*states, losses)):
        raise _unable(
            model, "numbers that are not finite", "Its weights are damaged, or its config.json is not theirs."
        )
    if torch.equal(*states):
        raise _unable(model, "the same for two different records", "Its weights are damaged: copy them again.")


def _states(model: "AdaptedModel", records: Records, device: torch.device) -> torch.Tensor:
    batch = collate(records, [0], model.kind.fills, device)
    return model.kind.features(model.kind.run(model.base, model.read(batch)), batch)


def _unable(model: "AdaptedModel", got: str, hint: str) -> SettingsError:
    return SettingsError(
        f"Expected a base model that computes what the task needs, got from model type {model.config.model_type!r}: "
        f"{got}.",
        hint=hint,
    )
