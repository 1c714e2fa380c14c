"""The result of one check of `doctor`: ok, a warning, or failed, and what follows from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from shared.errors import FedVaultError

OUT_OF_MEMORY = (
    "End other programs on this device, or lower [performance] micro_batch_tokens: the result stays the same."
)
NO_ROOM = (
    "Set [performance] activation_checkpointing = true or a lower micro_batch_tokens, or ask for a study with "
    "model.base_weights = 'bfloat16' or '4bit'."
)
CONSEQUENCES = {
    "settings": "no command works, and every round is refused",
    "ledger": "nothing is trained: what was spent cannot be known",
    "disk": "a full disk stops training in the middle of a round that is paid for",
    "membership": "no study reaches this node",
    "certificate": "the server does not let this node in",
    "server": "no study reaches this node",
    "clock": "certificates and messages look as if they came from another time, and are refused",
    "key": "the server does not let this node in",
    "vault": "every round is answered with failed",
    "data": "no study can be approved, and every round on these records is refused",
    "base models": "studies of that model are refused",
    "budget": "every study on these records is refused",
    "labels": "training would spend budget and learn nothing",
    "policy and budget": "it cannot be approved",
    "room": "its rounds would be paid for and fail",
    "gradient probe, speed, memory": "its rounds would be paid for and fail",
}
"""What follows where a check fails, by the check's name without its dataset."""


class Seen(NamedTuple):
    """Holds what a check saw that did not fail."""

    saw: str
    consequence: str = ""
    """Makes it a warning."""
    todo: str = ""
    notes: tuple[str, ...] = ()
    """What was found out beside it, a line each."""


@dataclass(frozen=True)
class Finding:
    """One check."""

    check: str
    ok: bool
    """False if it failed; a warning is ok."""
    saw: str
    todo: str = ""
    """What to do if it is not ok, or a warning."""
    consequence: str = ""
    """What follows if nothing is done."""
    notes: tuple[str, ...] = ()
    """What was found out beside it, a line each."""

    @property
    def state(self) -> Literal["ok", "warn", "FAILED"]:
        """The finding in one word."""
        return "FAILED" if not self.ok else "warn" if self.consequence else "ok"

    @property
    def in_words(self) -> str:
        """The finding as lines for a terminal."""
        more = [f"so: {self.consequence}"] if self.consequence else []
        more += [self.todo] if self.todo and self.state != "ok" else []
        return "\n       ".join([f"{self.state:<6} {self.check}: {self.saw}", *more, *self.notes])


def not_ok(check: str, saw: str, todo: str) -> Finding:
    """Return a failed check, with what follows from it."""
    return Finding(check, False, saw, todo, CONSEQUENCES.get(check.rpartition(": ")[2], ""))


def failed(check: str, error: FedVaultError) -> Finding:
    """Turn an expected failure into a finding."""
    return not_ok(check, str(error), error.hint or "Mend what the message names.")


def tried(check: str, look: Callable[[], str | Seen]) -> Finding:
    """Look, and turn whatever goes wrong into a finding."""
    try:
        seen = look()
        saw, consequence, todo, notes = Seen(seen) if isinstance(seen, str) else seen
        return Finding(check, True, saw, todo, consequence, notes)
    except FedVaultError as error:
        return failed(check, error)
    except MemoryError:
        return not_ok(check, "out of memory", OUT_OF_MEMORY)
    except (RuntimeError, OSError) as error:
        # a library's or the system's own words, of which the first line says what
        saw = str(error).splitlines()[0] if str(error) else type(error).__name__
        return not_ok(check, saw, OUT_OF_MEMORY if "out of memory" in saw else "Mend what the message names.")
