"""Hide a vector of one sum behind the mask of this node: what both kinds of sums have in common.

| a sum of | what is added | its answer |
|---|---|---|
| a round's parts | `masked_trainer` | `TrainReply.masked` |
| an evaluation's counts | `masked_counts` | `EvaluationReply.masked` |
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from client.vault.secure_sum.sum_files import SumFiles
from shared.errors import FedVaultError
from shared.secure_sum.context import Purpose, RoundContext
from shared.secure_sum.messages import masked_bytes
from shared.secure_sum.node import Member, mask_vector
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.roster import Roster
from shared.study.declaration import Study


def hidden(
    files: SumFiles,
    study: Study,
    values: NDArray[np.int64],
    *,
    run: str,
    number: int,
    adapter_sha256: str,
    purpose: Purpose,
) -> bytes:
    """Return the message of a vector behind its mask.

    Guarantee: this node's share of its own mask is on disk before the masked vector is released.

    Args:
        files: this node's keys and rosters; the roster was admitted.
        study: of the run.
        values: noise included.
        run: as the server calls it.
        number: of the round or evaluation.
        adapter_sha256: of the adapter that was sent with the question.
        purpose: of the sum.

    Raises:
        FedVaultError: keys or roster are gone, or there was a vector before.
    """
    identity, roster = files.identity(run), files.roster(run)
    if identity is None or roster is None:
        raise FedVaultError(f"Expected keys and roster of {run!r}, they are gone.")
    context = RoundContext(run, study.sha256, number, adapter_sha256, roster.sha256, purpose)
    recorded = files.part(run, number, purpose)
    row = mask_vector(Member(identity.entry.name, identity.keys, roster), context, values, recorded)
    # the message is kept by the outbox, with a digest in the ledger
    files.keep_part(replace(row, message=b""))
    return row.message


def nothing_hidden(files: SumFiles, run: str, roster: bytes, length: int) -> bytes:
    """Return zeros as long as the message of a vector would be."""
    identity, known = files.identity(run), files.roster(run) or _roster(roster)
    name, nodes = identity.entry.name if identity else "", len(known.entries) if known else 0
    return bytes(masked_bytes(name, nodes, length))


def _roster(encoded: bytes) -> Roster | None:
    try:
        return Roster.from_bytes(encoded)
    except SecureSumError:
        return None
