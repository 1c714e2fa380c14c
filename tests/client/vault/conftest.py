"""One node with one dataset, and a disk whose power can fail."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.study.declaration import Study
from tests.support.nodes import Node
from tests.support.power import Power, power_supply

Studies = Callable[..., Study]


@pytest.fixture
def node(tmp_path: Path, tiny_bert: Path, make_study: Studies) -> Node:
    return Node(tmp_path, tiny_bert, make_study)


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Power], None]]:
    """Puts a power supply in front of the disk."""
    with power_supply(monkeypatch) as supply:
        yield supply


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, if this machine has such: a crash at each step is played thousands of times."""
    shared = Path("/dev/shm")  # noqa: S108 - a private folder below it
    folder = shared / f"fedvault-{os.getpid()}-{time.monotonic_ns()}" if os.access(shared, os.W_OK) else tmp_path / "m"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)
