"""A server that is lost and restored from its backup: its nodes come back to it, and nobody is invited again."""

from pathlib import Path

import pytest

from client.link.fleet import CUT, Fleet, NotAccepted
from client.link.membership import Membership, membership
from client.settings import Server
from simulations.e2e.federation import Federation, wait_until

POLICY = f'epsilon = 1.0\ndelta = 1e-6\ndeclared_size = 10\nmodels = ["{"0" * 64}"]\n'


@pytest.mark.slow
@pytest.mark.integration
def test_nodes_come_back_to_a_server_that_was_restored(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.make_server()
    federation.make_node("ward", "text,label\n", POLICY)
    try:
        federation.server("start", "--detach")
        wait_until(federation.ready, "the server runs")
        federation.enrol("ward")
        member = membership(tmp_path / "ward" / "node" / "link")
        wait_until(lambda: let_in(member), "the node is let in")
        backup = str(tmp_path / "kept.tgz")
        federation.server("backup", backup)  # while it runs
        federation.server("halt")
        federation.home.rename(tmp_path / "lost")
        federation.server("restore", backup)
        federation.server("start", "--detach")
        wait_until(federation.ready, "the restored server runs")
        wait_until(lambda: let_in(member), "the node is let in again, by the certificate that it had")
    finally:
        federation.stop()


def let_in(member: Membership) -> bool:
    fleet: Fleet = member.connect(Server(), member.folder)
    try:
        fleet.activate(member.node_id)
        return fleet.heartbeat()
    except (*CUT, NotAccepted):
        return False
    finally:
        fleet.close(deactivate=True)
