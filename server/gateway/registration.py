"""Makes Flower's list of nodes follow the run store: who enrolled is let in, who was revoked is shut out.

The run store is the truth and is written first. Each step looks at what is there before it changes anything, so it may
be cut off at any moment and repeated.
"""

import logging
from collections.abc import Mapping
from typing import NamedTuple

from server.flower.control import Control, FlowerNode
from server.run_store.store import Store
from server.run_store.values import Node
from shared.errors import RunError

log = logging.getLogger(__name__)


class Synchronised(NamedTuple):
    """Flower's list of nodes, after it was made to follow the run store."""

    present: set[int]
    """Flower's numbers of the nodes that are connected."""
    troubles: dict[str, str]
    """By node's name, why Flower could not be made to follow; the others are not concerned."""


def ensure_registered(store: Store, control: Control, node: Node) -> int:
    """Return Flower's number of an enrolled node, after letting its key in and keeping the number where need be.

    Guarantee: a crash between Flower's database and the run store leaves nothing that the next call does not finish.

    Raises:
        RunError: Flower does not answer, or does not take the key.
    """
    return _ensure_registered(store, control, node, _by_key(control))


def synchronise_nodes(store: Store, control: Control) -> Synchronised:
    """Let enrolled nodes into Flower and shut revoked ones out, wherever that has not been done yet.

    Guarantee: trouble with one node keeps no other node out.

    Raises:
        RunError: Flower does not answer.
    """
    registered, troubles = _by_key(control), dict[str, str]()
    for node in store.nodes():
        try:
            if node.revoked:
                _ensure_shut_out(control, node, registered)
            elif node.enrolled:
                _ensure_registered(store, control, node, registered)
        except (RunError, ValueError) as error:
            troubles[node.name] = str(error)
    return Synchronised({node.node_id for node in registered.values() if node.present}, troubles)


def _ensure_registered(store: Store, control: Control, node: Node, registered: Mapping[str, FlowerNode]) -> int:
    known = registered.get(node.public_key.strip())
    number = known.node_id if known is not None else _register(control, node)
    if number != node.node_id:
        store.renumber(node.name, number)
        log.info("%s has a new number in Flower.", node.name)
    return number


def _register(control: Control, node: Node) -> int:
    try:
        return control.register(node.public_key)
    except RunError:
        # the gateway and a run's process look at the same moment: one of them was quicker
        known = _by_key(control).get(node.public_key.strip())
        if known is None:
            raise
        return known.node_id


def _ensure_shut_out(control: Control, node: Node, registered: Mapping[str, FlowerNode]) -> None:
    known = registered.get(node.public_key.strip())
    if known is not None:
        control.unregister(known.node_id)


def _by_key(control: Control) -> dict[str, FlowerNode]:
    return {node.public_key.strip(): node for node in control.nodes() if node.status != "unregistered"}
