"""Whole federations of images and of speech: prepared, trained at two sites, compared, exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from server.export.adapter import load_finished
from shared.study.parsing import parse
from simulations.experiment.scenario import Scenario
from simulations.progress import SilentProgress
from simulations.results.result import Result
from simulations.run import Run

pytestmark = pytest.mark.integration


def simulated(folder: Path, model: Path, task: dict[str, Any], table: pd.DataFrame) -> Result:
    table.to_parquet(folder / "table.parquet", index=False)
    declared = {
        "study": {"name": "test"},
        "model": {"source": str(model)},
        "task": task,
        "adapter": {"layers": "all", "rank": 2},
        "privacy": {"epsilon": 8.0, "sampling_rate": 0.5},
        "training": {"local_steps": 1},
        "federation": {"rounds": 2, "smallest_declared_size": 4},
        "performance": {"threads": 1},
        "simulation": {
            "processes": 1,
            "arms": ["majority", "untrained-head", "federated", "without-privacy"],
            "data": {"source": "table.parquet", "partition": {"by": "iid", "sites": 2}, "holdout": 0.3},
        },
    }
    run = Run(parse(Scenario, declared, where="test"), folder / "table.parquet", folder / "run", SilentProgress())
    run.open(resume=False)
    return run.execute()


def test_two_sites_learn_masks(tmp_path: Path, media_model: Callable[[str], Path], png: Callable[..., bytes]) -> None:
    squares = [np.random.default_rng(n).integers(0, 2, (4, 4)).repeat(4, 0).repeat(4, 1) for n in range(24)]
    table = pd.DataFrame({"image": [png(square * 200) for square in squares], "mask": [png(s) for s in squares]})
    task = {"kind": "semantic-segmentation", "labels": ["ground", "square"]}
    result = simulated(tmp_path, media_model("vit"), task, table)
    assert result.final.metric == "mean_iou" and [r.outcome for r in result.rounds] == ["aggregated"] * 2
    assert set(result.arms) == {"majority", "untrained-head", "federated", "without-privacy"}
    assert load_finished(tmp_path / "run" / "adapter").study.task.kind == "semantic-segmentation"


def test_two_sites_learn_to_write(
    tmp_path: Path, media_model: Callable[[str], Path], wav: Callable[..., bytes]
) -> None:
    sounds = [wav(200 + 40 * n, seconds=0.2) for n in range(24)]
    table = pd.DataFrame({"audio": [b"broken", *sounds[1:]], "transcript": ["low", "high"] * 12})
    task = {"kind": "speech-recognition", "seconds": 0.2, "max_target_length": 8}
    result = simulated(tmp_path, media_model("whisper"), task, table)
    assert result.final.metric == "wer" and not result.final.higher_is_better
    assert [r.outcome for r in result.rounds] == ["aggregated"] * 2
    assert sum(site.unusable for site in result.data.values()) <= 1
