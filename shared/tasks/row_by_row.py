"""Encode a table so that nothing in one row makes encoding fail, or changes another row."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import FedVaultError
from shared.records.ragged import Encoded, Problem, joined

if TYPE_CHECKING:
    from shared.tasks.kind import Rows

BLANK = ""
RUST_PANIC = "PanicException"
"""Tokenizers are written in Rust, whose last resort is no Exception in Python, and has no name to import."""


class UnusableRowError(ValueError):
    """A row breaks a rule that holds for every kind; the message gives the reason, for the operator's eyes only."""


def encode_each(encode: "Callable[[Rows], Encoded]", rows: "Rows") -> Encoded:
    """Encode rows, each by itself; one that makes `encode` raise cannot be used, and is a problem.

    All rows are encoded at once. Where that raises, halves of them are, down to the row that does it. A row without
    content takes its place. What even that makes raise is the study's fault or the machine's, and is raised.

    Guarantee: nothing in a row makes encoding fail, or changes what another row is encoded to.

    Args:
        encode: encodes rows; each row's fields depend on that row alone.
        rows: cells of any type by column.
    """
    count = len(next(iter(rows.values()), ()))
    done: dict[int, Encoded] = {}
    # a list, and no function that calls itself: the depth of a call decides which nested cell is too deep
    waiting = [range(count)]
    while waiting:
        part = waiting.pop()
        try:
            done[part.start] = _finite(encode({name: cells[part.start : part.stop] for name, cells in rows.items()}))
        except BaseException as error:
            if not _may_be_a_rows_fault(error) or not part:
                raise
            middle = part.start + len(part) // 2
            if len(part) > 1:
                waiting += [range(part.start, middle), range(middle, part.stop)]
            else:
                empty = encode({name: [BLANK] for name in rows})
                unusable = empty.records.without_use()
                done[part.start] = Encoded(unusable, (Problem(0, _reason(error)),))
    if len(done) == 1:
        return done[0]
    starts = sorted(done)
    problems = [Problem(start + row, reason) for start in starts for row, reason in done[start].problems]
    return Encoded(joined([done[start].records for start in starts]), tuple(problems))


def _finite(encoded: Encoded) -> Encoded:
    """Return what rows were encoded to; a number that is none would reach the gradient of a record with no loss."""
    for name, field in encoded.records.fields.items():
        if field.values.dtype.kind == "f" and not np.isfinite(field.values).all():
            raise UnusableRowError(f"its {name} holds values that are no numbers")
    return encoded


def _may_be_a_rows_fault(error: BaseException) -> bool:
    """Return false for what no cell can cause, as its cost is bounded and it chooses no libraries; and for signals."""
    if isinstance(error, MemoryError | ImportError):
        return False
    return isinstance(error, Exception) or type(error).__name__ == RUST_PANIC


def _reason(error: BaseException) -> str:
    if isinstance(error, UnusableRowError):
        return str(error)
    first = str(error).splitlines()[:1] if isinstance(error, FedVaultError) else [type(error).__name__]
    return f"it cannot be encoded: {''.join(first)}"
