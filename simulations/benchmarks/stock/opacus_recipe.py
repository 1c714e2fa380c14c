"""Private training as Opacus' tutorials write it: padded to one length, its loader, its hooks, its memory manager.

Source: https://opacus.ai/tutorials/building_text_classifier. The tutorial keeps dropout; here it is off, as with us.
"""

import warnings
from typing import Any

import torch
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from shared.records.ragged import Records
from simulations.benchmarks.stock.peft_model import padded, trained

PHYSICAL_BATCH = 32


class OpacusRecipe:
    """Trains a PEFT model; one call is one epoch with an engine of its own.

    Args:
        model: as PEFT gives it.
        records: token ids and one label each.
        max_length: tokens to which every record is padded.
        sampling_rate: q; one by a whole number, since the loader takes one step per expected batch.
        noise_multiplier: sigma.
        clip_norm: C.
    """

    def __init__(
        self,
        model: Any,
        records: Records,
        *,
        max_length: int,
        sampling_rate: float,
        noise_multiplier: float,
        clip_norm: float,
    ) -> None:
        self.model = model.train()
        self.max_length, self._noise_multiplier, self._clip_norm = max_length, noise_multiplier, clip_norm
        rows = [torch.from_numpy(records["ids"][i]).long() for i in range(len(records))]
        targets = torch.tensor([int(records["target"][i][0]) for i in range(len(records))])
        self._dataset = TensorDataset(*padded(rows, max_length), targets)
        self._batch = -(-len(records) // round(1 / sampling_rate))
        self.seen = 0
        """Records of the last epoch."""
        self.spent = (0.0, 0.0, 0)
        """Sigma, q and steps of the last epoch, as Opacus' accountant entered them."""

    def __call__(self) -> None:
        """Train one epoch."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # secure mode is off; hooks on a module without inputs that need gradients
            engine = PrivacyEngine()
            model, optimizer, loader = engine.make_private(
                module=self.model,
                optimizer=torch.optim.AdamW(trained(self.model), lr=5e-4),
                data_loader=DataLoader(self._dataset, batch_size=self._batch),
                noise_multiplier=self._noise_multiplier,
                max_grad_norm=self._clip_norm,
            )
            self.seen, device = 0, next(self.model.parameters()).device
            with BatchMemoryManager(
                data_loader=loader, max_physical_batch_size=PHYSICAL_BATCH, optimizer=optimizer
            ) as batches:
                for batch in batches:
                    ids, mask, targets = (tensor.to(device) for tensor in batch)
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, targets)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    self.seen += len(targets)
        (self.spent,) = engine.accountant.history
        model.to_standard_module()  # takes the hooks off again
