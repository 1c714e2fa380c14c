"""One step of LoRA on a decoder, three ways: as a node trains it, as plain PEFT does, and with Opacus' own engine.

All train the same tensors on as many random records of one length: nothing is padded, so what differs is how the
gradients come about.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from opacus import PrivacyEngine
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from client.vault.training.noise_prefetch import prefetch_noise
from client.vault.training.randomness import OsRandomness
from client.vault.training.trainer import FILLED_UP, LearningRates, PrivateTrainer
from shared.adapted_model.frozen_activations import open_activations
from shared.adapted_model.model import build
from shared.privacy.noise_schedule import schedule_of
from shared.study.declaration import Study
from shared.study.parsing import parse
from shared.study.sections import BaseWeights
from simulations.benchmarks.memory.peak import peak_bytes
from simulations.benchmarks.speed.waiting import until_done
from simulations.benchmarks.stock.peft_model import Shapes, shapes_of, trained

Way = Literal["private", "plain", "opacus"]
Precision = Literal["float32", "bfloat16"]
WARM_UP = 2


@dataclass(frozen=True)
class Work:
    """A micro-batch, and where it is trained."""

    model: Path
    """Folder of the base model."""
    records: int
    tokens: int
    """Of every record."""
    device: str
    """As torch names it."""
    precision: Precision = "float32"
    """Of matrix products, whatever the weights are held in."""
    base_weights: BaseWeights = "float32"
    """In which numbers a node holds the model; peers hold it in float32."""
    checkpointing: bool = False
    """Whether a node computes layers again in the backward pass."""

    def autocast(self) -> torch.autocast:
        """Return the context of precision in which a peer runs its model."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


@dataclass(frozen=True)
class Step:
    """A step that can be run again and again; it returns when the device is done."""

    run: Callable[[], None]
    trains: Shapes


def write_decoder(folder: Path, shape: dict[str, Any], device: str | None = None) -> None:
    """Leave a decoder with random weights where a study finds it.

    Args:
        folder: of the model.
        shape: of its configuration.
        device: to draw the weights on, in bfloat16, for large models; default: the CPU, in float32.
    """
    torch.manual_seed(0)
    if device is None:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    else:
        with torch.device(device):
            model = LlamaForCausalLM._from_config(LlamaConfig(**shape), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    # a folder without a tokenizer is no base model; the records here are made of token ids
    marks = {"unk_token": "[UNK]", "eos_token": "</s>"}
    words = Tokenizer(WordLevel({"[UNK]": 0, "</s>": 1, "a": 2}, unk_token=marks["unk_token"]))
    PreTrainedTokenizerFast(tokenizer_object=words, **marks).save_pretrained(folder)


def step_of(way: Way, work: Work) -> Step:
    """Make one of the three ways ready to run."""
    ready = {"private": _private, "plain": _plain, "opacus": _opacus}[way](work)
    return Step(until_done(ready.run), ready.trains)


def peak_of(way: Way, work: Work) -> float:
    """Return the most memory that a way took, in bytes: of the GPU, or of this process, which should be a fresh one."""
    logging.disable_progress_bar()
    step = step_of(way, work)
    for _ in range(WARM_UP):
        step.run()
    return float(torch.cuda.max_memory_allocated()) if work.device.startswith("cuda") else float(peak_bytes())


def study_of(work: Work) -> Study:
    """Declare a study of LoRA on query and value of all layers, by default settings."""
    declared = {
        "study": {"name": "benchmark"},
        "model": {"source": str(work.model), "base_weights": work.base_weights},
        "task": {"kind": "causal-lm", "form": "text", "max_length": work.tokens},
        "adapter": {"layers": "all"},
        "performance": {
            "micro_batch_tokens": work.records * work.tokens,
            "precision": work.precision,
            "activation_checkpointing": work.checkpointing,
        },
    }
    return parse(Study, declared, where="benchmark")


def _private(work: Work) -> Step:
    study, device = study_of(work), torch.device(work.device)
    model = build(study).to(device)
    records = model.kind.synthetic(model.config, [work.tokens] * work.records, variant=0)
    trainer = PrivateTrainer(
        model,
        open_activations(model, records, device, folder=None, limit_bytes=0),
        schedule_of(study),
        divisor_size=FILLED_UP * work.records * 10,  # a site whose expected batch is many physical ones of this size
        learning_rates=LearningRates(study.training.learning_rate, study.training.adapter_learning_rate),
        micro_batch_tokens=study.performance.micro_batch_tokens,
        precision=study.performance.precision,
        checkpointing=study.performance.activation_checkpointing,
    )
    optimizer, randomness = trainer.optimizer(trainer.plan.release(1)), OsRandomness()

    def run() -> None:
        drawn = prefetch_noise(randomness.step(), model.layout.length, optimizer.noise_scale, device)
        for count in trainer.gradients(np.arange(work.records)):
            optimizer.accumulate(count)
        optimizer.noisy_step(drawn)

    return Step(run, shapes_of(model))


def _plain(work: Work) -> Step:
    model, ids = _peft_model(work), _ids(work)
    optimizer = torch.optim.SGD(trained(model), lr=0.1)

    def run() -> None:
        optimizer.zero_grad()
        with work.autocast():
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()

    return Step(run, shapes_of(model))


def _opacus(work: Work) -> Step:
    bare, ids, study = _peft_model(work), _ids(work), study_of(work)
    schedule = schedule_of(study)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # secure mode is off
        model, optimizer, _ = PrivacyEngine().make_private(
            module=bare,
            optimizer=torch.optim.SGD(trained(bare), lr=0.1),
            data_loader=DataLoader(TensorDataset(ids), batch_size=work.records),
            noise_multiplier=schedule.noise_multiplier,
            max_grad_norm=schedule.clip_norm,
            poisson_sampling=False,
        )

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a hook sees inputs that need no gradient
            optimizer.zero_grad()
            with work.autocast():
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            optimizer.step()

    return Step(run, shapes_of(bare))


def _peft_model(work: Work) -> Any:
    """Build the model that a user of PEFT would, with A fixed as in the study."""
    rank = study_of(work).adapter.rank
    base = AutoModelForCausalLM.from_pretrained(work.model, local_files_only=True, dtype=torch.float32)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=["q_proj", "v_proj"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an attribute's older name
        adapted = get_peft_model(base, config).train()
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False)
    return adapted.to(work.device)


def _ids(work: Work) -> torch.Tensor:
    vocabulary = LlamaConfig.from_pretrained(work.model).vocab_size
    return torch.randint(vocabulary, (work.records, work.tokens)).to(work.device)
