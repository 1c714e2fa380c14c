"""One node with one dataset."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.study.declaration import Study
from tests.support.nodes import Node

Studies = Callable[..., Study]


@pytest.fixture
def node(tmp_path: Path, tiny_bert: Path, make_study: Studies) -> Node:
    return Node(tmp_path, tiny_bert, make_study)
