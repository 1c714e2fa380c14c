"""A run goes on once a person has looked at what failed, and for nothing else that failed meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from client.evidence.history import history
from client.vault.ledger.rows import decided
from client.vault.review.node_files import open_node
from client.vault.review.resuming import resume, stalled
from shared.errors import PolicyRefusal, SettingsError
from shared.study.declaration import Study
from tests.support.nodes import UnjoinedNode


@pytest.fixture
def node(tmp_path: Path, tiny_bert: Path, make_study: Callable[..., Study]) -> UnjoinedNode:
    return UnjoinedNode(tmp_path, tiny_bert, make_study)


@pytest.mark.guarantee("a run is resumed for the rounds that a person was shown, and for none that failed since.")
def test_a_run_is_resumed_for_what_was_shown(node: UnjoinedNode) -> None:
    node.approve()
    files = open_node(node.config)
    with files.open_ledger() as ledger:
        with pytest.raises(SettingsError, match="r-1 does not"):
            stalled(ledger.state, "r-1")
        ledger.reserve("r-1", 1)
        ledger.fail("r-1", 1)
        shown = stalled(ledger.state, "r-1")
        ledger.reserve("r-1", 2)
        ledger.fail("r-1", 2)
        with pytest.raises(PolicyRefusal, match="Expected to resume 1, now 1, 2 wait"):
            resume(ledger, "r-1", shown)
        words = decided("Dr. Weber", "a new disk", "the page")
        assert resume(ledger, "r-1", stalled(ledger.state, "r-1"), words).startswith("It continues. Row ")
        assert ledger.state.run("r-1").waiting_in_words == ""
    said = history(files)[-1]["sentence"]
    assert said.startswith("The operator (Dr. Weber, on the page) looked at rounds 1, 2 of r-1, which failed or were")
    assert said.endswith(' lost ("a new disk").')
