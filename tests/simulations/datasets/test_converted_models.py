"""Converted models against the graphs that they came from, where they are at hand; nothing is fetched here."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from shared.base_models.bundled import data_folder
from simulations.datasets import fetch as fetching
from tests.support.paths import ROOT
from tests.support.source_graphs import RECORDED, pixels, sample


def at_hand(name: str) -> Path:
    """The folder of a bundled model; the test is skipped where nobody fetched it."""
    folder = fetching.find(name, ROOT / data_folder())
    if folder is None:
        pytest.skip(f"{name} is not here; fedvault-sim data fetch {name} brings it")
    return folder


def recorded(name: str) -> torch.Tensor:
    return torch.tensor(json.loads(RECORDED.read_text())[name])


def test_dinov2_small_computes_what_its_source_graph_computes() -> None:
    model = AutoModel.from_pretrained(at_hand("dinov2-small")).eval()
    with torch.no_grad():
        states = model(torch.from_numpy(pixels(224))).last_hidden_state
    torch.testing.assert_close(torch.from_numpy(sample(states.numpy())), recorded("dinov2-small"), rtol=0, atol=1e-3)
