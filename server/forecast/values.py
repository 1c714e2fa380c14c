"""The forecast of a study as plain values: for every node, and for the mean over them."""

from dataclasses import asdict, dataclass
from typing import Any

from server.forecast.evaluation import EvaluationForecast
from server.forecast.whitening import Whitening
from shared.privacy.signal_to_noise import LEARNS_NOTHING, AdapterStart, Batch, Prospect, best_batches, mean_batch

TYPICAL_SIZE_HELPS = 1.02
"""How many times as high a ratio is at which a typical size is worth a line."""


@dataclass(frozen=True)
class NodeForecast:
    """The forecast for one node."""

    name: str
    declared_size: int
    expected_batch: float
    """Sampling rate x declared size."""
    divisor: float
    """L, of every step: the expected batch, or sampling rate x federation.typical_size."""
    update_ratio: float
    """Longest signal over noise of its update in the first round that trains."""
    study_ratio: float
    """Longest signal over noise of the part that decides, over all steps, if the node were alone."""
    noise_length: float
    """Of that update, in parameter units."""
    rounds_rejected: int
    """Rounds whose update is certain to be longer than the server accepts."""


@dataclass(frozen=True)
class PartForecast:
    """The forecast for the head, or for the adapter, in the mean over all nodes."""

    name: str
    dimension: int
    learning_rate: float
    study_ratio: float
    """Longest signal over noise, over all steps."""


@dataclass(frozen=True)
class TypicalSize:
    """A value of `federation.typical_size` that suits these nodes."""

    mean: int
    """Of their declared sizes, rounded as these are."""
    gain: float
    """How many times as high the mean's ratio would be with it."""

    @property
    def helps(self) -> bool:
        """Return whether sites differ so much in size that it is worth a line."""
        return self.gain > TYPICAL_SIZE_HELPS


@dataclass(frozen=True)
class StudyForecast:
    """The whole forecast; noise, steps and cost are the same at every node."""

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
    """Of all rounds, by PRV: tighter, shown only."""
    epsilon_limit: float
    spent_steps: int
    rounds_afforded: int
    """More rounds that a ledger with this limit and these steps spent can pay for."""
    bytes_up_per_round: int
    """Payload of one node's update, in the study's encoding."""
    bytes_down_per_round: int
    """Payload of the adapter, which always travels as float32."""
    bytes_total: int
    """Payload of one node, up and down, over all rounds; a round that has to be asked again adds to it."""
    mean_update_ratio: float
    """Longest signal over noise of the mean of all nodes' updates in the first round that trains."""
    parts: list[PartForecast]
    """The one that decides first: the head, which starts at zero, or the adapter of a task without a head."""
    head_start: float | None
    """Learning rate of the head that this noise suggests; None for what is no classifier of one label."""
    adapter_start: AdapterStart | None
    """Learning rate and share of the adapter beside that head; None unless head and adapter are both trained."""
    typical_size: TypicalSize
    whitening: Whitening | None
    """None where there is no single linear head on pooled features."""
    gain_of_twice_the_rounds: float | None
    """How many times the ratio twice as many rounds would have, at the same epsilon and other learning rates; None if
    no practical noise would be enough for them."""
    nodes: list[NodeForecast]
    left_out: list[str]
    """Nodes below federation.smallest_declared_size: they refuse, and spend nothing."""
    quorum: int
    asked_per_round: int
    """All nodes that can join, or federation.cohort of them; cost is that of a node which is asked in every round."""
    shared_noise: str
    """What the nodes' one noise promises, by who colludes, in words; empty if each node adds all noise."""
    gain_of_shared_noise: float | None
    """How many times the ratio is with one noise for all nodes, beside each node with all of it; None for a study whose
    noise cannot be shared."""
    prospect: Prospect
    method: str = ""
    """What the method of aggregation changes, in words; empty for the mean."""
    evaluation: EvaluationForecast | None = None
    """None for a study without a private evaluation."""

    @property
    def too_few(self) -> bool:
        """Return whether the nodes are fewer than the quorum, so that no round would count."""
        return len(self.nodes) < self.quorum

    @property
    def ratio(self) -> float:
        """Return longest signal over noise over all steps, of the part that decides, for the mean of all nodes."""
        return self.parts[0].study_ratio

    def quietest(self, *, least: int = 1) -> tuple[list[NodeForecast], float]:
        """Return the largest nodes, at least so many, whose mean is the least noisy, and its ratio by that of all."""
        nodes = sorted(self.nodes, key=lambda node: -node.declared_size)
        batches = [Batch(node.expected_batch, node.divisor) for node in nodes]
        best = best_batches(batches, asked=self.asked_per_round, least=least)
        best_mean, mean = (mean_batch(some, asked=self.asked_per_round) for some in (best, batches))
        return nodes[: len(best)], best_mean.units / mean.units

    @property
    def lost_alone(self) -> list[str]:
        """Return the nodes that would learn almost nothing under the whole noise, if they were alone."""
        return [node.name for node in self.nodes if node.study_ratio < LEARNS_NOTHING]

    @property
    def fits(self) -> bool:
        """Return whether a node with this limit could approve the study."""
        return self.rounds_afforded >= self.rounds

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {
            "whitening": self.whitening and self.whitening.as_dict(),
            "typical_size": asdict(self.typical_size) | {"helps": self.typical_size.helps},
            "ratio": self.ratio,
            "fits": self.fits,
            "too_few": self.too_few,
            "lost_alone": self.lost_alone,
            "prospect": str(self.prospect),
            "evaluation": self.evaluation and self.evaluation.as_dict(),
        }
