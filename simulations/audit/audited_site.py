"""A site whose records are canaries, on the whole way of an update: the node's own round trainer on a tiny model, the
reply as it is sent, and the server's mean.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray

from client.vault.training.randomness import Randomness
from client.vault.training.round_trainer import RoundTrainer
from server.aggregation.mean import UniformMean
from shared.adapted_model.measured import head_rate, is_measured
from shared.adapted_model.model import build
from shared.errors import ExactnessError
from shared.protocol.flower_records import decode_reply, encode_reply
from shared.protocol.messages import Status, TrainTask, Vector
from shared.protocol.update_encoding import Wire
from shared.records.ragged import Records, ragged, with_units
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study
from shared.study.parsing import parse
from shared.study.schedule import round_factors
from shared.study.sections import RECORD
from simulations.audit.canaries import BLOCK, Canaries, plant

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *[f"word{number}" for number in range(59)]]
RECORDS_PER_UNIT = 2


@dataclass(frozen=True)
class Claim:
    """A study's promise, and how it is kept: what an audit tests."""

    epsilon: float
    delta: float = 1e-5
    sampling_rate: float = 0.5
    rounds: int = 8
    """Of one step each. In every other round all canaries' gradients are turned round, so that noise which is used
    twice cancels."""
    unit: str = RECORD
    whitening: bool = False
    canaries: int = 5000
    clipping: str = "automatic"
    wire: Wire = "float32"

    @property
    def width(self) -> int:
        """Width of the model, so that its feature moments have a direction for each canary."""
        return 8 * math.ceil(math.sqrt(self.canaries + BLOCK) / 8)


def study_of(claim: Claim, folder: Path, sizes: Thresholds | None = None) -> Study:
    """Declare the study that makes a claim, over a model with random weights that is written into a folder.

    Args:
        claim: to make.
        folder: for the model.
        sizes: of a secure sum whose nodes share the noise, all of one size; None for sites with all noise of their own.
    """
    federation: dict[str, Any] = {"rounds": claim.rounds, "smallest_declared_size": 1, "wire": claim.wire}
    if sizes is not None:
        federation |= {"secure_sum": "shared", "threshold": sizes.threshold, "colluders": sizes.colluders}
        federation |= {"typical_size": claim.canaries // 2}
    labels = math.ceil((claim.canaries + BLOCK) / (claim.width + 1))
    source = tiny_model(folder / f"model-{claim.width}", claim.width)
    declared = {
        "study": {"name": "audit"},
        "model": {"source": str(source)},
        "task": {"kind": "sequence-classification", "labels": [f"l{n}" for n in range(labels)], "max_length": 16},
        "adapter": {"method": "head-only"},
        "privacy": {
            "epsilon": claim.epsilon,
            "delta": claim.delta,
            "sampling_rate": claim.sampling_rate,
            "unit": claim.unit,
            "clipping": claim.clipping,
        },
        "training": {"local_steps": 1, "whitening": claim.whitening},
        "federation": federation,
        "performance": {"device": "cpu"},
    }
    return parse(Study, declared, where="audit")


def attack(
    claim: Claim, included: NDArray[np.bool_], folder: Path, randomness: Callable[[int], Randomness]
) -> NDArray[np.float64]:
    """Train all rounds of a claim's study on the canaries that are in; returns every canary's score (canaries,).

    Args:
        claim: to test.
        included: which canaries are in (canaries,).
        folder: for model and cache.
        randomness: of each round.

    Raises:
        ExactnessError: a round was refused or failed, or a record raised.
    """
    study, canaries = study_of(claim, folder), Canaries(claim.canaries, seed=0)
    planted = np.flatnonzero(included)
    of_record = planted if claim.unit == RECORD else np.repeat(planted, RECORDS_PER_UNIT)
    records = records_of(len(of_record))
    if claim.unit != RECORD:
        records = with_units(records, np.arange(len(of_record)) // RECORDS_PER_UNIT)
    site = site_on(study, records, folder, randomness, declared_size=claim.canaries // 2)
    plant(site.trainer(), canaries, of_record)
    scores = np.zeros(claim.canaries)
    for number in range(1, claim.rounds + 1):
        canaries.sign = 1.0 if number % 2 else -1.0
        update = released(site, number)
        rate = head_rate(study, number) * round_factors(study, number)[0]
        measures = study.measures(number)
        moved = np.concatenate(
            [np.full(math.prod(shape), is_measured(name) == measures) for name, shape in site.model.layout.tensors]
        )
        scores += canaries.scores(-update[moved].astype(np.float64) * site.trainer().divisor / rate)
    return scores


def site_on(
    study: Study, records: Records, folder: Path, randomness: Callable[[int], Randomness], *, declared_size: int
) -> RoundTrainer:
    """Return the node's own trainer of a study's rounds on some records.

    Raises:
        ExactnessError: it would refuse a round.
    """
    site = RoundTrainer(
        study,
        build(study),
        records,
        declared_size=declared_size,
        randomness=randomness,
        cache=folder / "cache",
        verdicts=folder / "verdicts",
    )
    refused = [number for number in range(1, study.federation.rounds + 1) if site.refusal(_task(site, number))]
    if refused:
        raise ExactnessError(f"Expected rounds that a node trains, it refuses {refused}.")
    return site


def released(site: RoundTrainer, number: int) -> Vector:
    """Train a round from the start; returns what the server makes of the reply that was sent: a mean of one update.

    Raises:
        ExactnessError: the round failed, or a record raised.
    """
    reply = site.attempt(_task(site, number), site.release)
    if reply.status is not Status.TRAINED or site.trainer().raised:
        raise ExactnessError(f"Expected round {number} to be trained, got {reply.status.name}.")
    received, mean = decode_reply(encode_reply(reply), site.study.federation.wire), UniformMean(site.dimension)
    mean.add(received.update)
    return mean.result(np.zeros(site.dimension, np.float32))


def _task(site: RoundTrainer, number: int) -> TrainTask:
    return TrainTask(site.study.sha256, "audit", number, site.model.start, wire=site.study.federation.wire)


def records_of(count: int) -> Records:
    """Make records of random words, all of one length and label."""
    tokens = np.random.default_rng(0).integers(5, len(VOCABULARY), (count, 8))
    fields = {"ids": ragged(tokens.tolist(), np.int32), "target": ragged([0] * count, np.int64)}
    return Records(fields, np.ones(count, bool))


def tiny_model(folder: Path, width: int) -> Path:
    """Write a BERT of one layer with random weights; they are irrelevant, for canaries' gradients are given."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=width,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder
