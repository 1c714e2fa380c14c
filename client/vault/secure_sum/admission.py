"""Admission of a run's roster, before anything is paid: from public facts and the operator's rules alone.

| the roster | the answer |
|---|---|
| is no roster of this run and study, or has other numbers than the study gives | `refused_roster` |
| lacks this node, or has it under other keys or another name | `refused_roster` |
| has a wrong signature, a name or key twice, a key that acts like another | `refused_roster` |
| holds too few nodes, fewer than the study's quorum, or too many whom the operator has not pinned | `refused_roster` |
| shares the noise among so many that all others could see more than the account may spend | `refused_roster` |
| is another one than this node took | `refused_roster` |
| is the one that this node took, and its keys are gone | `out_of_secure_sum` |
| is the first that passes | durable as a file, then as a row of the ledger; then as any later time |
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

from client.vault.ledger.approval import take_roster as enter_roster
from client.vault.ledger.ledger import Ledger
from client.vault.ledger.rows import NOTHING_DECLARED, Limit
from client.vault.secure_sum.sum_files import UNSIGNED, Identity, SumFiles
from shared.errors import BudgetError, SettingsError
from shared.privacy.sum_numbers import sum_numbers
from shared.protocol.messages import EvaluationTask, Status, TrainTask
from shared.secure_sum.node import take_roster
from shared.secure_sum.refusals import Refusal, SecureSumError
from shared.secure_sum.roster import Roster
from shared.secure_sum.thresholds import OwnPolicy
from shared.study.declaration import Study

log = logging.getLogger(__name__)


class Admission:
    """Decides about the roster of a study's task or evaluation, with the ledger held.

    Guarantee: a node takes part only under the first roster that it took, with its own keys in it unchanged.
    Guarantee: a roster that breaks the operator's own rule is refused before anything is paid, also if it was taken.

    Args:
        files: this node's.
        study: as it was approved.
        policy: of the operator, today.
        declared: the limits of node.toml today by dataset, which may be stricter than the registered ones.
    """

    def __init__(
        self, files: SumFiles, study: Study, policy: OwnPolicy, declared: Mapping[str, Limit] = NOTHING_DECLARED
    ) -> None:
        self._files, self._study, self._policy, self._declared = files, study, policy, declared

    def __call__(self, ledger: Ledger, task: TrainTask | EvaluationTask) -> Status | None:
        """Return a public reason not to take part; None once the roster is taken, and durable."""
        taken = ledger.state.run(task.study_run).roster
        identity = self._files.identity(task.study_run)
        if taken is not None and (identity is None or self._lost(task.study_run, taken)):
            log.error("Refused: the keys of %s are gone from this node.", task.study_run)
            return Status.OUT_OF_SECURE_SUM
        if identity is None:
            log.error("Refused: this node has made no keys for %s.", task.study_run)
            return Status.REFUSED_ROSTER
        try:
            roster = Roster.from_bytes(task.roster)
            self._check(roster, task.study_run, identity, taken)
            if taken is None:
                self._enter(ledger, roster)
        except (SecureSumError, SettingsError, BudgetError) as error:
            log.error("%s was refused for its roster: %s", task.study_run, error)
            return Status.REFUSED_ROSTER
        return None

    def _enter(self, ledger: Ledger, roster: Roster) -> None:
        self._files.keep_roster(roster)
        sizes = roster.numbers.thresholds
        enter_roster(
            ledger,
            roster.run,
            roster.sha256,
            nodes=sizes.nodes,
            threshold=sizes.threshold,
            colluders=sizes.colluders,
            declared=self._declared,
        )

    def _check(self, roster: Roster, run: str, identity: Identity, taken: str | None) -> None:
        if len(roster.entries) < self._study.federation.quorum:
            raise SecureSumError(Refusal.SMALL_COHORT, f"n={len(roster.entries)}")
        # a signature differs each time that the link signs; what it covers may not
        listed = {entry.name: entry.signature for entry in roster.entries}
        me = replace(identity.entry, signature=listed.get(identity.entry.name, UNSIGNED))
        take_roster(
            roster,
            me,
            identity.keys,
            sum_numbers(self._study, len(roster.entries)),
            self._policy,
            taken,
            run=run,
            study_sha256=self._study.sha256,
            # the authority is the server's own and vouches for whom it likes: what counts are the operator's pins
            vouched=lambda _entry: True,
        )

    def _lost(self, run: str, taken: str) -> bool:
        roster = self._files.roster(run)
        return roster is None or roster.sha256 != taken
