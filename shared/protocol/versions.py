"""Find the version of the protocol that two sides share.

| version | new in it |
|---|---|
| 3 | a vector travels as bytes inside the record that describes it |
| 4 | offers and their answers name the versions that a side speaks, so that two ages find a common one |
| 5 | a task names the encoding of the update in its reply |
| 6 | a study may name any aggregation; `refused_adapter`; the position of a ledger bears its node's MAC |
| 7 | a study may state purpose, requester, contact, legal basis and retention |
| 8 | secure sums: offers name the peers, answers bear a roster's entry, tasks a roster; two more questions a round |
| 9 | private evaluations: a node counts over the records that it holds out, and answers with noisy counts |
| 10 | evaluations under a secure sum: their question bears a roster, and the sum's questions say what it is of |

The server offers a study in an envelope whose layout stays version 3's for ever. Both sides name the versions that they
speak. Tasks to a node use the newest version that both speak; a reply uses its task's version. A study that uses what
older nodes cannot know, such as updates that do not travel as float32, is offered only in the versions that know it
(`Study.versions`), so that an older node refuses the version by name, and not a study that it cannot read.
"""

from typing import NamedTuple


class Versions(NamedTuple):
    """The versions that one side speaks: all from the oldest to the newest."""

    oldest: int
    newest: int

    def common(self, other: "Versions") -> int | None:
        """Return the newest version that both sides speak; None if there is none."""
        newest = min(self.newest, other.newest)
        return newest if newest >= max(self.oldest, other.oldest) else None


SPOKEN = Versions(3, 10)
BEFORE_NEGOTIATION = Versions(3, 3)
"""Versions of a side that names none."""
ENVELOPE = Versions(3, 3)
"""Version of offers and their answers: a side that cannot read it cannot negotiate."""
SAYS_WIRE = 5
"""First version in which a task names the encoding of its reply's update; before, all were float32."""
FREE_AGGREGATION = 6
"""First version whose nodes take a study with any name under `federation.aggregation`."""
SAYS_ADAPTER = 6
"""First version in which a node answers `refused_adapter`; before, it says `refused_study`."""
SAYS_MAC = 6
"""First version in which the position of a node's ledger bears the node's MAC."""
SAYS_PURPOSE = 7
"""First version whose nodes know a study's purpose, requester, contact, legal basis and retention."""
SAYS_SECURE_SUM = 8
"""First version whose nodes take part in secure sums."""
SAYS_EVALUATION = 9
"""First version whose nodes answer private evaluations."""
SAYS_SUMMED_EVALUATION = 10
"""First version whose nodes add the counts of an evaluation to a secure sum."""
