"""Versions of the protocol, and how two sides agree on one.

| version | what is new in it |
|---|---|
| 3 | a vector travels as bytes inside the record that describes it |
| 4 | offers and stances say which versions are spoken, so that two sides of different age find a common one |
| 5 | a task says how the update in its reply is encoded |

The server shows a study in an envelope whose layout is version 3's for ever, says which versions it speaks, and hears
which the node speaks. Tasks to that node are written in the newest that both know; a reply is in its task's version.
A study whose updates do not travel as float32 is offered in version 5 and newer alone, so that an older node refuses
the version by name instead of a study that it cannot read.
"""

from typing import NamedTuple

from shared.protocol.update_encoding import Wire


class Versions(NamedTuple):
    """What one side speaks: every version from the oldest to the newest."""

    oldest: int
    newest: int

    def common(self, other: "Versions") -> int | None:
        """The newest version that both speak, if there is one."""
        newest = min(self.newest, other.newest)
        return newest if newest >= max(self.oldest, other.oldest) else None


SPOKEN = Versions(3, 5)
BEFORE_NEGOTIATION = Versions(3, 3)
"""What is spoken by a side that does not say."""
ENVELOPE = Versions(3, 3)
"""Of offers and stances: who cannot read these cannot negotiate."""
SAYS_WIRE = 5
"""The first in which a task says how its reply's update is encoded; before it all were float32."""


def spoken_for(wire: Wire) -> Versions:
    """The versions of ours in which a study with this encoding can be trained."""
    return SPOKEN if wire == "float32" else Versions(SAYS_WIRE, SPOKEN.newest)
