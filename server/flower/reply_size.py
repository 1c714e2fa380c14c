"""The most that one node's reply may be: the run that is driven says it, the gateway holds the nodes to it.

The gateway knows no models, so it cannot work out how long a study's updates are; the process of the run can.
"""

from contextlib import suppress

from server.settings import Home
from shared.files import write_atomically

MOST_OBJECTS = 8
"""Flower's objects in one reply. FedVault's has three: the message, its records, and the one record in them."""
BESIDE_UPDATE_BYTES = 4 * 2**10
"""Room for everything in a reply's largest object that is not its update."""
WITHOUT_RUN_BYTES = 16 * 2**10
"""Largest object while no run is driven: an answer to an offer has a few hundred bytes."""


def publish_update_bytes(home: Home, update_bytes: int) -> None:
    """Let nodes send objects that hold an update of so many bytes, and none larger.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(home.flower / "update-bytes", str(update_bytes).encode())


def withdraw_update_bytes(home: Home) -> None:
    """Take it back when the run is over; what cannot be removed allows no more than it did."""
    with suppress(OSError):
        (home.flower / "update-bytes").unlink(missing_ok=True)


def largest_object_bytes(home: Home) -> int:
    """Return how large an object of a reply may be now."""
    try:
        update_bytes = int((home.flower / "update-bytes").read_text())
    except (OSError, ValueError):
        return WITHOUT_RUN_BYTES
    return max(WITHOUT_RUN_BYTES, update_bytes + BESIDE_UPDATE_BYTES)
