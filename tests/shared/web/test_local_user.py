"""Linux says whose process opened a connection within the machine, and nobody says it of any other."""

import os
import socket
import sys

import pytest

from shared.web.local_user import SOCKETS, user_of
from shared.web.process import listening


@pytest.mark.skipif(not SOCKETS.exists(), reason=f"{sys.platform} does not say who opened a connection")
def test_a_connection_within_the_machine_has_its_users_number() -> None:
    with listening() as opened, socket.create_connection(opened.getsockname()) as client:
        assert user_of(client.getsockname(), opened.getsockname()) == os.getuid()
        client.shutdown(socket.SHUT_WR)
        assert user_of(client.getsockname(), opened.getsockname()) is None, "one that is closed is nobody's"


@pytest.mark.parametrize(
    "ends", [(None, None), (("127.0.0.1", 1), ("127.0.0.1", 2)), (("not an address", 1), ("::1", 2))]
)
def test_of_any_other_nobody_is_known(ends: tuple[tuple[str, int] | None, tuple[str, int] | None]) -> None:
    assert user_of(*ends) is None
