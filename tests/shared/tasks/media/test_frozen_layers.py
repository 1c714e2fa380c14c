"""Frozen layers that see and hear are run once per record, and kept."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.study.declaration import Study
from tests.support.task_examples import EXAMPLES

KINDS = {
    "image": "image-classification",
    "mask": "semantic-segmentation",
    "sound": "audio-classification",
    "speech": "speech-recognition",
}
TASKS: dict[str, dict[str, Any]] = {short: {"kind": kind, **EXAMPLES[kind].declared} for short, kind in KINDS.items()}
SOUNDS = [("sound", "wav2vec2"), ("sound", "wav2vec2-stable"), ("sound", "whisper")]
CASES = [("image", "vit"), ("image", "deit"), ("image", "dinov2"), ("mask", "dinov2"), ("mask", "vit"), *SOUNDS]
LAST, HEAD = {"layers": "last:1"}, {"method": "head-only"}


@pytest.mark.parametrize(("kind", "family"), [*CASES, ("speech", "whisper")])
@pytest.mark.parametrize("method", ["ffa-lora", "dora"])
def test_layers_below_the_adapted_ones_are_kept(
    media_study: Callable[..., Study],
    check_cut: Callable[[Study], Any],
    worst_error: Callable[[Study], float],
    kind: str,
    family: str,
    method: str,
) -> None:
    study = media_study(family, task=TASKS[kind], adapter=LAST | {"method": method})
    check_cut(study)
    assert worst_error(study) < 1e-5


@pytest.mark.parametrize(("kind", "family"), [*CASES, ("image", "swin")])
def test_features_are_kept_if_only_the_head_is_trained(
    media_study: Callable[..., Study], check_cut: Callable[[Study], Any], kind: str, family: str
) -> None:
    check_cut(media_study(family, task=TASKS[kind], adapter=HEAD))
