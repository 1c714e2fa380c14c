"""Makes what a server's run needs for its secure sum, from the run store and the run's folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from server.run_store.store import Store
from server.secure_sum.files import SumFiles
from server.secure_sum.history import ROSTER, roster_event
from server.secure_sum.members import Federation, RosterMembers
from server.secure_sum.numbers import fewest_nodes, most_nodes
from server.secure_sum.opening import Note, Opening, Surroundings
from server.secure_sum.roster import RunRoster
from server.secure_sum.rounds import SecureRounds
from server.secure_sum.step import step_of
from shared.adapted_model.adapters import Layout
from shared.errors import RunError
from shared.privacy.sum_numbers import sum_numbers
from shared.protocol.messages import StudyOffer
from shared.secure_sum.thresholds import Thresholds
from shared.study.declaration import Study

FOLDER = "secure-sum"


class SecureRun:
    """A run with a secure sum.

    Args:
        folder: of the run.
        store: the run store.
        run: its name.
        study: as declared.
        note: keeps an event of the run.
        waits: is told what the run waits for, and nothing once it goes on.
    """

    def __init__(
        self, folder: Path, store: Store, run: str, study: Study, *, note: Note, waits: Callable[[str], None]
    ) -> None:
        self._study, self._note = study, note
        self._files, self._federation = SumFiles(folder / FOLDER), Federation(store)
        self.roster = RunRoster(
            run,
            study.sha256,
            numbers=lambda nodes: sum_numbers(study, nodes),
            most=lambda able: most_nodes(study, able),
            begins_with=fewest_nodes(study),
            quorum=study.federation.quorum,
            file=self._files.roster,
        )
        self._around = Surroundings(
            self._federation.name, note, waits, lambda: self._federation.note_revoked(self.roster)
        )
        if not any(event.kind == ROSTER for event in store.events(run)):
            self._note_roster()  # a process that was killed may have written the roster and no event

    def participants(self, grid: Grid, offer: StudyOffer, *, quorum: int, **options: Any) -> RosterMembers:
        """Return who may take part; the options are those of `ApprovedOnly`."""
        del quorum  # the roster's
        return RosterMembers(grid, offer, self.roster, self._federation, on_roster=self._note_roster, **options)

    def rounds(self, grid: Grid, layout: Layout, largest_norm: Callable[[int], float]) -> SecureRounds:
        """Return what drives its rounds over a grid."""
        step = step_of(self._study, layout, self._thresholds, largest_norm)
        return SecureRounds(self.opening(grid), step)

    def opening(self, grid: Grid) -> Opening:
        """Return what opens its sums over a grid."""
        return Opening(grid, self.roster, self._files, self._around)

    def _thresholds(self) -> Thresholds:
        if self.roster.fixed is None:
            raise RunError("Expected the roster of the run's secure sum to be fixed before its first step.")
        return self.roster.fixed.numbers.thresholds

    def _note_roster(self) -> None:
        if self.roster.fixed is not None:
            self._note(*roster_event(self.roster.fixed))
