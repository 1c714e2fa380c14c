"""Run a model once without weights, on a public record of the greatest length: only shapes are computed.

What its own code refuses there, it would refuse for every record, after the first round was paid for.
"""

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from shared.errors import FedVaultError, SettingsError
from shared.records.batches import collate
from shared.study.tasks import Task
from shared.tasks.fit import lengths_of

if TYPE_CHECKING:
    from shared.adapted_model.model import AdaptedModel

SHAPES_ONLY = torch.device("meta")


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
