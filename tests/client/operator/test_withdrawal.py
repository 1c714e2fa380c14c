"""A dataset that is withdrawn: copies gone, descendants listed, other names ended."""

from collections.abc import Callable

import pytest

from client.operator.withdrawal import withdraw
from client.vault.review.node_files import open_node
from shared.study.declaration import Study
from tests.support.nodes import UnjoinedNode

Studies = Callable[..., Study]


@pytest.mark.guarantee("after a withdrawal no snapshot and no cached activation of its records is left.")
def test_withdrawing_deletes_copies_and_lists_what_descends(node: UnjoinedNode) -> None:
    node.approve()
    files = open_node(node.config)
    with files.open_ledger() as ledger:
        ledger.reserve("r-1", 1)
        ledger.reserve("r-1", 2)
    files.folders.cache.mkdir()
    (files.folders.cache / "abc-def.f32").write_bytes(b"activations")
    (found,) = withdraw(files, "ward")
    assert (found.run, found.study, found.dataset, found.rounds_paid) == ("r-1", "test", "ward", 2)
    assert found.model == node.study.model.source
    assert not files.folders.cache.exists() and list(files.folders.approved.iterdir()) == []


def test_a_dataset_that_was_never_approved_can_be_withdrawn_and_takes_its_other_names_with_it(
    node: UnjoinedNode,
) -> None:
    assert withdraw(open_node(node.config), "ward") == []
    with pytest.raises(Exception, match="withdrawn"):
        node.approve(dataset="renamed")
