"""What a plan says of a study: plain values, for every node and for the mean over them."""

from dataclasses import asdict, dataclass
from typing import Any

from shared.privacy.signal_to_noise import DROWNS, STANDS_OUT, AdapterStart, Batch, Prospect, best_batches, mean_batch

TYPICAL_SIZE_HELPS = 1.02
"""How many times as high a ratio is at which a typical size is worth a line."""


@dataclass(frozen=True)
class NodePlan:
    """What one node can expect."""

    name: str
    declared_size: int
    expected_batch: float
    """Sampling rate x declared size."""
    divisor: float
    """L, of every step: the same, or sampling rate x federation.typical_size."""
    update_ratio: float
    """Longest signal over noise of its update in the first round that trains."""
    study_ratio: float
    """The same over all steps of the part that decides, if the node were alone."""
    noise_length: float
    """Of that update, in parameter units."""
    rounds_kept_out: int
    """Rounds whose update is certain to be longer than the server accepts."""


@dataclass(frozen=True)
class PartPlan:
    """What the mean over all nodes can expect of the head, or of the adapter."""

    name: str
    dimension: int
    learning_rate: float
    study_ratio: float
    """Longest signal over noise, over all steps."""


@dataclass(frozen=True)
class TypicalSize:
    """What `federation.typical_size` could be for these nodes."""

    mean: int
    """Of their declared sizes, rounded as these are."""
    gain: float
    """What the mean's ratio would be with it, by what it is as declared."""

    @property
    def helps(self) -> bool:
        """Whether sites differ so much in size that it is worth a line."""
        return self.gain > TYPICAL_SIZE_HELPS


@dataclass(frozen=True)
class Whitening:
    """What `training.whitening` could tell apart."""

    edge: float
    """Of features' mean square length, that a direction has to hold to stand out of the noise."""
    width: int
    """Directions."""
    on: bool
    """Whether the study does."""

    @property
    def possible(self) -> bool:
        """Whether noise is so low that it is worth a trial."""
        return self.edge * self.width < STANDS_OUT

    @property
    def hopeless(self) -> bool:
        """Whether noise is as high as where nothing was ever gained."""
        return self.edge * self.width >= DROWNS


@dataclass(frozen=True)
class StudyPlan:
    """The whole plan; noise, steps and cost are the same at every node."""

    study_sha256: str
    noise_multiplier: float
    sampling_rate: float
    steps: int
    rounds: int
    delta: float
    unit: str
    epsilon_by_round: list[float]
    """By RDP, which is what ledgers count."""
    epsilon_prv: float | None
    """Of all rounds: tighter, shown only."""
    epsilon_limit: float
    spent_steps: int
    rounds_afforded: int
    """More rounds that a ledger with this limit and these steps spent can pay for."""
    bytes_up_per_round: int
    """Payload of one node's update, in the study's encoding."""
    bytes_down_per_round: int
    """Of the adapter, which always travels as float32."""
    bytes_total: int
    """Of one node, up and down, over all rounds."""
    mean_update_ratio: float
    """Longest signal over noise of the mean of all nodes' updates in the first round that trains."""
    parts: list[PartPlan]
    """The one that decides first: the head, which starts at zero, or the adapter of a task without a head."""
    head_start: float | None
    """Learning rate of the head that this noise suggests; None for what is no classifier of one label."""
    adapter_start: AdapterStart | None
    """The same of the adapter, beside that head, and a share; None unless head and adapter are both trained."""
    typical_size: TypicalSize
    whitening: Whitening | None
    """None where there is no single linear head on pooled features."""
    gain_of_twice_the_rounds: float | None
    """How many times the ratio twice as many rounds would have, at the same epsilon and other learning rates; None if
    no practical noise would be enough for them."""
    nodes: list[NodePlan]
    left_out: list[str]
    """Nodes below federation.smallest_declared_size: they refuse, and spend nothing."""
    quorum: int
    asked_per_round: int
    """All nodes that can join, or federation.cohort of them; cost is that of a node which is asked in every round."""
    prospect: Prospect

    @property
    def too_few(self) -> bool:
        """Whether no round can count."""
        return len(self.nodes) < self.quorum

    @property
    def ratio(self) -> float:
        """What the prospect is judged by: over all steps, of the part that decides, for the mean of all nodes."""
        return self.parts[0].study_ratio

    def quietest(self, *, least: int = 1) -> tuple[list[NodePlan], float]:
        """The largest nodes, at least so many, whose mean is the least noisy, and its ratio by that of all."""
        nodes = sorted(self.nodes, key=lambda node: -node.declared_size)
        batches = [Batch(node.expected_batch, node.divisor) for node in nodes]
        best = best_batches(batches, asked=self.asked_per_round, least=least)
        best_mean, mean = (mean_batch(some, asked=self.asked_per_round) for some in (best, batches))
        return nodes[: len(best)], best_mean.units / mean.units

    @property
    def fits(self) -> bool:
        """Whether a node with this limit could approve the study."""
        return self.rounds_afforded >= self.rounds

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        whitening = self.whitening and asdict(self.whitening) | {"possible": self.whitening.possible}
        return asdict(self) | {
            "whitening": whitening,
            "typical_size": asdict(self.typical_size) | {"helps": self.typical_size.helps},
            "ratio": self.ratio,
            "fits": self.fits,
            "too_few": self.too_few,
            "prospect": str(self.prospect),
        }
