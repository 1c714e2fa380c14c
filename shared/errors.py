"""Every error that FedVault raises on purpose, grouped by who has to act.

    FedVaultError
    ├── SettingsError     2  the operator: a study, scenario or option is wrong
    ├── DataError         3  the operator: a data source cannot be used as declared
    ├── PeerError         4  the other side broke the protocol
    │   ├── VersionError  4  both sides speak no common version of the protocol
    │   └── EncodingError 4  an update's bytes do not follow the encoding of its study
    ├── PolicyRefusal     5  the node's own rules say no
    ├── BudgetError       6  the privacy budget does not allow it
    ├── ExactnessError    7  exact per-example gradients cannot be shown for this model and adapter
    ├── RunError          8  a run cannot continue; its folder is intact
    ├── LedgerError       9  the node's ledger cannot be trusted; nothing is trained until a person has looked
    └── AccessError      11  the operator: a file, a folder or a process is another user's

The number is the process exit code.
"""

from typing import ClassVar


class FedVaultError(Exception):
    """An expected failure: a line that names what was expected and what came, and a hint that tells what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), str(self), self.hint))


class SettingsError(FedVaultError):
    """A study, scenario or command-line option is wrong."""

    exit_code = 2


class DataError(FedVaultError):
    """A data source cannot be read as declared."""

    exit_code = 3


class PeerError(FedVaultError):
    """A message from the other side breaks the protocol."""

    exit_code = 4


class VersionError(PeerError):
    """A message uses a version of the protocol that this side does not speak."""


class EncodingError(PeerError):
    """The bytes of an update do not follow the encoding of its study."""


class PolicyRefusal(FedVaultError):  # noqa: N818 - a refusal is the node working, not failing
    """The node's own rules forbid what was asked."""

    exit_code = 5


class BudgetError(FedVaultError):
    """No noise level, or no remaining budget, gives the privacy that a study asks for."""

    exit_code = 6


class ExactnessError(FedVaultError):
    """Per-example gradients are not exact, so clipping would bound nothing."""

    exit_code = 7


class RunError(FedVaultError):
    """A run stopped before its end; its folder can be resumed."""

    exit_code = 8


class LedgerError(FedVaultError):
    """The ledger is damaged, rolled back, held elsewhere or cannot be written."""

    exit_code = 9


class AccessError(FedVaultError):
    """A file, a folder or a process is another user's: nobody can tell from here what it is or does."""

    exit_code = 11

    @classmethod
    def of(cls, error: OSError) -> "AccessError":
        """Return what the system's refusal means for an operator."""
        return cls(
            f"Expected {error.filename or 'a file'} to be open to this user, it is not.",
            hint="Type this as the user whose it is: ls -ld names them.",
        )


def _rebuild(kind: type[FedVaultError], message: str, hint: str) -> FedVaultError:
    return kind(message, hint=hint)


OF_THE_MACHINE = ("memory", "CUDA", "cuDNN", "cuBLAS", "CUBLAS", "CUDNN", "device-side", "HIP error")
"""Words in a `RuntimeError` of PyTorch that speak of the machine, not of a record."""

OUT_OF_MEMORY = ("allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Words in a `RuntimeError` of PyTorch where memory ran out."""


def may_be_a_records_own(error: Exception) -> bool:
    """Return true if what a record holds may have raised this; false for memory, disks, devices and our own checks.

    How much memory is left depends on who else is there. So a lack of it is no record's: it ends the round.
    """
    if isinstance(error, MemoryError | OSError | FedVaultError) or type(error).__name__ in (
        "OutOfMemoryError",
        "AcceleratorError",
    ):
        return False
    return not (isinstance(error, RuntimeError) and any(word in str(error) for word in OF_THE_MACHINE))


def lacks_memory(error: BaseException) -> bool:
    """Return true if memory ran out, of this machine or of a GPU; their libraries have a kind or a word each for it."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(word in str(error) for word in OUT_OF_MEMORY))
