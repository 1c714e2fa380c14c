"""A run's folder: claimed by one scenario and one process, resumed after any cut, timed phase by phase."""

import fcntl
import json
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shared.errors import RunError, SettingsError
from shared.evidence.facts import PluginUse
from shared.files import write_atomically
from shared.study.sections import Performance
from simulations.experiment.scenario import Scenario
from simulations.run_identity.settings import PRECISION

SOURCE_FILE = "source.json"
BESIDE_A_RUN = ("cache", "audit.json", SOURCE_FILE)
"""What may be in a folder before a run begins there: of a run that was released, of an audit of its own, or of a
beginning that was cut."""
NO_BITS = set(Performance.model_fields) - set(PRECISION)
"""Keys of [performance] that change no bit, but for another device."""


def lock(folder: Path) -> int:
    """Be the only process with a folder until the descriptor that is returned is closed.

    Raises:
        RunError: another process is.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunError(
            f"Expected {folder} for this process alone, another one is working in it.",
            hint="Wait for it to end, or stop it; what it has finished is not run again.",
        ) from None
    return descriptor


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder, and be the only process with it meanwhile; it goes again if nothing was written into it.

    Raises:
        RunError: another process is.
    """
    made = _missing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = lock(folder)
    try:
        yield
    finally:
        _remove_empty(made)
        os.close(descriptor)


def _missing(folder: Path) -> list[Path]:
    return [one for one in (folder, *folder.parents) if not one.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # it is not empty: something else is there, or another run has begun beside it
        for folder in folders:
            folder.rmdir()


class RunFolder:
    """Holds everything that a run writes.

    Args:
        path: of the folder; it is made when it is claimed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prepared, self.cache, self.tables = path / "prepared", path / "cache", path / "tables"
        self.adapter, self.result, self.audit = path / "adapter", path / "result.json", path / "audit.json"
        self._scenario, self._timing = path / "scenario.json", path / "timing.json"
        self._plugins, self._source = path / "plugins.json", path / SOURCE_FILE
        self._made: list[Path] = []
        self.timing: dict[str, float] = {}
        """Seconds by phase, over every start of this run."""
        self._free: Callable[[], object] = lambda: None

    def claim(self, scenario: Scenario, source: Callable[[], Mapping[str, str]], *, resume: bool) -> None:
        """Begin a run of this scenario here, or continue it; no other process can until it is `done`, or gone.

        Args:
            scenario: as declared.
            source: returns a digest of each file of its data.
            resume: whether a run that is there may be continued.

        Raises:
            SettingsError: the folder holds a run and `resume` was not asked for, or a run of another scenario or of
                other data, or files that are no run's.
            RunError: another process goes on with the run.
        """
        self._check_empty()
        self._made = _missing(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._free = weakref.finalize(self, os.close, lock(self.path))
        try:
            self._begin(scenario, source, resume=resume)
        except BaseException:
            self.done()
            raise

    def done(self) -> None:
        """Let other processes have the folder."""
        self._free()

    def _check_empty(self) -> None:
        if self._scenario.exists() or not self.path.exists():
            return
        strange = [path for path in sorted(self.path.iterdir()) if path.name not in BESIDE_A_RUN]
        strange = [path for path in strange if not path.match(".*.new")]  # which a cut leaves of a file
        if strange:
            raise SettingsError(
                f"Expected a new folder or a run's, {self.path} holds other files, as {strange[0].name}.",
                hint="Name a folder that does not exist yet: --out runs/NAME",
            )

    def _begin(self, scenario: Scenario, source: Callable[[], Mapping[str, str]], *, resume: bool) -> None:
        excluded: dict[str, Any] = {"performance": NO_BITS}
        if not self._scenario.exists():
            write_atomically(self._source, json.dumps(dict(source()), indent=1).encode())
        else:
            self._check_resumed(resume=resume)
            before = json.loads(self._scenario.read_bytes())
            excluded = excluded if "performance" in before else {"performance": True}  # older runs did not write it
            self._check_same(before, json.loads(scenario.model_dump_json(exclude=excluded)))
            self._check_source(source)
        write_atomically(self._scenario, scenario.model_dump_json(indent=1, exclude=excluded).encode())
        if self._timing.exists():
            self.timing = json.loads(self._timing.read_text())

    def plugins(self) -> tuple[PluginUse, ...]:
        """Return the plug-ins that took part so far, over every start of this run."""
        written = json.loads(self._plugins.read_text()) if self._plugins.exists() else []
        return tuple(map(PluginUse.model_validate, written))

    def note_plugins(self, used: Sequence[PluginUse]) -> None:
        """Take note of plug-ins that take part from now on: another version of one stands beside the first."""
        before = self.plugins()
        if new := [one for one in used if one not in before]:
            plain = [one.model_dump() for one in (*before, *new)]
            write_atomically(self._plugins, json.dumps(plain, indent=1).encode())

    def release(self) -> None:
        """Leave the folder free for a corrected scenario, or no folder; for a run that has trained nothing."""
        shutil.rmtree(self.prepared)
        for path in (self._scenario, self._timing, self._plugins, self._source):
            path.unlink(missing_ok=True)
        _remove_empty(self._made or [self.path])

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds that a phase takes to `timing`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.timing[phase] = self.timing.get(phase, 0.0) + time.monotonic() - started
            write_atomically(self._timing, json.dumps(self.timing, indent=1).encode())

    def _check_resumed(self, *, resume: bool) -> None:
        if not resume:
            raise SettingsError(f"Expected a new folder, {self.path} holds a run.", hint="--resume, or another --out.")

    def _check_same(self, before: Any, declared: Any) -> None:
        changes = _changes(before, declared)
        if changes:
            raise SettingsError(
                f"Expected the scenario that {self.path} was started with, got a changed one: {'; '.join(changes)}.",
                hint="Choose another --out, or undo the change.",
            )

    def _check_source(self, source: Callable[[], Mapping[str, str]]) -> None:
        """Compare the data with those of the beginning; runs from before took no note of them."""
        if not self._source.exists():
            return
        before, now = json.loads(self._source.read_bytes()), source()
        changed = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
        if changed:
            raise SettingsError(
                f"Expected the data that {self.path} was started with, got other contents of {', '.join(changed)}.",
                hint="Choose another --out, or put the files back as they were.",
            )


def require_result(folder: Path) -> None:
    """Refuse a folder whose run is not finished, before anything of it is used.

    Raises:
        SettingsError: it holds no result.
    """
    if (folder / "result.json").exists():
        return
    if (folder / "scenario.json").exists():
        hint = f"fedvault-sim run SCENARIO --out {folder} --resume goes on with it."
        raise SettingsError(f"Expected a finished run, {folder} holds one without a result yet.", hint=hint)
    raise SettingsError(f"Expected the folder of a run, {folder} holds none.", hint="It is what --out named.")


def _changes(before: Any, now: Any, path: str = "") -> list[str]:
    """Name every key whose value differs, but for the number of workers, which changes no result."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [c for key in keys for c in _changes(before.get(key), now.get(key), f"{path}.{key}" if path else key)]
    return [] if before == now or path == "simulation.processes" else [f"{path} was {before!r} and is {now!r}"]
