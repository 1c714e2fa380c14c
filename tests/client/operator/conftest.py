"""A node with two datasets that share a record."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.study.declaration import Study
from tests.support.nodes import UnjoinedNode

Studies = Callable[..., Study]


@pytest.fixture
def node(tmp_path: Path, tiny_bert: Path, make_study: Studies) -> UnjoinedNode:
    return UnjoinedNode(tmp_path, tiny_bert, make_study)
