"""Frozen layers that see and hear are run once per record, and kept."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.study.declaration import Study

KINDS: dict[str, dict[str, Any]] = {
    "image": {"kind": "image-classification", "labels": ["a", "b"]},
    "mask": {"kind": "semantic-segmentation", "labels": ["a", "b"]},
    "sound": {"kind": "audio-classification", "labels": ["a", "b"], "seconds": 0.4},
    "speech": {"kind": "speech-recognition", "seconds": 0.4, "max_target_length": 16},
}
SOUNDS = [("sound", "wav2vec2"), ("sound", "wav2vec2-stable"), ("sound", "whisper")]
CASES = [("image", "vit"), ("image", "deit"), ("mask", "vit"), *SOUNDS]
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
    study = media_study(family, task=KINDS[kind], adapter=LAST | {"method": method})
    check_cut(study)
    assert worst_error(study) < 1e-5


@pytest.mark.parametrize(("kind", "family"), [*CASES, ("image", "swin")])
def test_features_are_kept_if_only_the_head_is_trained(
    media_study: Callable[..., Study], check_cut: Callable[[Study], Any], kind: str, family: str
) -> None:
    check_cut(media_study(family, task=KINDS[kind], adapter=HEAD))
