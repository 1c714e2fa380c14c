"""Tells from public numbers whether noise leaves room to whiten a head's features, and what changes where they are."""

from dataclasses import asdict, dataclass
from typing import Any

from shared.adapted_model.adapters import Layout
from shared.privacy.noise_schedule import NoiseSchedule
from shared.privacy.signal_to_noise import DROWNS, STANDS_OUT, WHITENED_HEAD_RATE, Batch, Steps, moments_edge
from shared.study.declaration import LINEAR_HEAD_KINDS, Study


@dataclass(frozen=True)
class Whitening:
    """The part of the features that `training.whitening` could tell from noise."""

    edge: float
    """Share of features' mean square length that a direction has to hold to stand out of the noise."""
    width: int
    """Number of directions."""
    on: bool
    """Whether the study whitens."""

    @property
    def possible(self) -> bool:
        """Return whether noise is so low that whitening is worth a trial."""
        return self.edge * self.width < STANDS_OUT

    @property
    def hopeless(self) -> bool:
        """Return whether noise is so high that whitening has never gained anything there."""
        return self.edge * self.width >= DROWNS

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"possible": self.possible}

    def in_words(self) -> str:
        """Say whether it is on, what stands out, and whether it is worth a trial."""
        stands_out = f"of {self.width} directions, one stands out that holds {100 * self.edge:.2g} % of the features"
        doubtful = "too loud to gain by it" if self.hopeless else "it may gain, or cost its round"
        return f"{'on' if self.on else 'off'}; {stands_out}: {'worth a trial' if self.possible else doubtful}"


def forecast_whitening(study: Study, layout: Layout, schedule: NoiseSchedule, mean: Batch) -> Whitening | None:
    """Forecast whitening for the mean over nodes; None where there is no single linear head on pooled features."""
    widths = [shape[1] for name, shape in layout.tensors if name.startswith("head.") and len(shape) == 2]
    if study.task.kind not in LINEAR_HEAD_KINDS or not widths:
        return None
    steps = Steps([1.0] * study.training.local_steps, schedule.noise_multiplier, schedule.clip_norm, mean)
    return Whitening(moments_edge(steps, widths[0]), widths[0], study.training.whitening)


def head_start_of(study: Study, plain: float | None) -> float | None:
    """Scale the rate that suits a head on features as they are to the features that this study gives it."""
    return plain and plain * (WHITENED_HEAD_RATE if study.training.whitening else 1)
