"""A page is reached from this machine alone."""

import pytest

from shared.errors import RunError
from shared.web.process import address, listening


@pytest.mark.guarantee(
    "a page listens on loopback alone, unless it runs in a container whose engine publishes its port."
)
def test_a_page_listens_on_loopback() -> None:
    with listening() as opened, listening(container_publishes=True) as inside:
        assert opened.getsockname()[0] == "127.0.0.1" and inside.getsockname()[0] == "0.0.0.0"  # noqa: S104
        assert address(opened.getsockname()[1], "k").startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_named() -> None:
    with listening() as opened:
        port = opened.getsockname()[1]
        with pytest.raises(RunError, match=f"port {port} to be free"):
            listening(port)
