"""Bytes that all sides read the same way: fields carry their length, which a reader checks first.

Every message begins with `MAGIC`, the version of its layout and its kind.
"""

from enum import IntEnum

from shared.secure_sum.refusals import Refusal, SecureSumError

PROTOCOL = "fedvault secure sum 1"
MAGIC, VERSION = b"FVSS", 1
MOST_NODES = 100
MOST_NAME_BYTES = 255
LENGTH_BYTES, NUMBER_BYTES = 4, 8


class Kind(IntEnum):
    """Kinds of encoded values."""

    RUN_KEYS = 1
    ENTRY = 2
    ROSTER = 3
    MASKED = 4
    SURVIVORS_QUESTION = 5
    SURVIVORS_REPLY = 6
    OPENING_QUESTION = 7
    OPENING_REPLY = 8
    MASKED_ROW = 9
    SESSION = 10


def joined(*fields: bytes | str | int) -> bytes:
    """Join fields, each with its length before it, so that no other list of fields gives the same bytes."""
    return b"".join(len(part).to_bytes(LENGTH_BYTES, "big") + part for part in map(_as_bytes, fields))


def counted(count: int) -> bytes:
    """Return a count, to be read by `Reader.size`."""
    return count.to_bytes(LENGTH_BYTES, "big")


def head(kind: Kind) -> bytes:
    """Return the first bytes of every encoded value of a kind."""
    return MAGIC + bytes((VERSION, kind))


def _as_bytes(field: bytes | str | int) -> bytes:
    if isinstance(field, int):
        return field.to_bytes(NUMBER_BYTES, "big")
    return field.encode() if isinstance(field, str) else field


class Reader:
    """Reads an encoded value from its beginning to its end.

    Guarantee: bytes from the other side raise `SecureSumError` and nothing else.

    Raises:
        SecureSumError: from every method, where the bytes are not what its arguments allow.
    """

    def __init__(self, encoded: bytes, kind: Kind, *, most_bytes: int) -> None:
        if len(encoded) > most_bytes or not encoded.startswith(MAGIC):
            raise malformed(f"a {kind.name.lower()} of at most {most_bytes} bytes")
        self._encoded, self._at = encoded, len(MAGIC)
        if self.take(1)[0] != VERSION:
            raise SecureSumError(Refusal.VERSION)
        if self.take(1)[0] != kind:
            raise malformed(f"a {kind.name.lower()}")

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        end = self._at + size
        if end > len(self._encoded):
            raise malformed("more bytes")
        taken, self._at = self._encoded[self._at : end], end
        return taken

    def size(self, most: int) -> int:
        """Return a length or a count, which is at most `most`."""
        size = int.from_bytes(self.take(LENGTH_BYTES), "big")
        if size > most:
            raise malformed(f"at most {most}")
        return size

    def field(self, most: int) -> bytes:
        """Return a field of at most `most` bytes."""
        return self.take(self.size(most))

    def fixed(self, size: int) -> bytes:
        """Return a field of exactly `size` bytes."""
        if self.size(size) != size:
            raise malformed(f"a field of {size} bytes")
        return self.take(size)

    def number(self) -> int:
        """Return a number that was joined as one."""
        return int.from_bytes(self.fixed(NUMBER_BYTES), "big")

    def text(self, most: int = MOST_NAME_BYTES) -> str:
        """Return a field as text."""
        try:
            return self.field(most).decode()
        except UnicodeDecodeError:
            raise malformed("text") from None

    def end(self) -> None:
        """Refuse bytes after the last field."""
        if self._at != len(self._encoded):
            raise malformed("no more bytes")


def malformed(expected: str) -> SecureSumError:
    """Return the error of bytes that cannot be read."""
    return SecureSumError(Refusal.MALFORMED, f"Expected {expected}.")
