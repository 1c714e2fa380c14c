"""Studies on offer beside what was said to them, and what an operator is told of a study's secure sum."""

from typing import Any

from client.policy import DatasetPolicy
from client.vault.ledger.state import LedgerState
from client.vault.review.node_files import NodeFiles
from client.vault.review.offers import Offered
from client.vault.review.peers import known_peers, sum_in_words
from shared.errors import SettingsError
from shared.privacy.in_words import best_guess
from shared.study.declaration import Study


def study_rows(node: NodeFiles) -> list[dict[str, Any]]:
    """Return every study that the server showed this node, and how the node stands to it, by run.

    Raises:
        LedgerError: the ledger cannot be trusted.
    """
    with node.open_ledger() as ledger:
        runs = ledger.state.runs
        return [
            {
                "run": offered.run,
                "study": offered.study.study.name,
                "you said": answer(offered, ledger.state),
                "decisions": "; ".join(d.in_words for d in ledger.state.decisions.get(offered.run, ())),
                "rounds": f"{len(runs[offered.run].attempts) if offered.run in runs else 0}"
                f" of {offered.study.federation.rounds}",
                "epsilon": offered.study.privacy.epsilon,
                "best guess": best_guess(offered.study.privacy.epsilon),
            }
            for offered in node.offers.all()
        ]


def offered_run(node: NodeFiles, run: str) -> Offered:
    """Return an offer by its run's whole name: an address says which one, and no other.

    Raises:
        SettingsError: no such run is on offer.
    """
    for offered in node.offers.all():
        if offered.run == run:
            return offered
    raise SettingsError(f"Expected the run of a study on offer, got {run!r}.")


def sum_lines(node: NodeFiles, study: Study, run: str | None, rules: DatasetPolicy) -> list[str]:
    """Return what the operator is told of a study's secure sum; nothing for a study without one."""
    own = node.settings.own_policy(rules)
    return sum_in_words(study, [] if run is None else known_peers(node, run), own)


def answer(offered: Offered, state: LedgerState) -> str:
    """Return what was said to an offer, in a few words."""
    latest, run = state.answer(offered.run), state.runs.get(offered.run)
    if latest == "no" or (offered.rejected and (run is None or run.closed)):
        return "no"
    if run is None:
        return "nothing yet"
    if run.closed:
        return "yes, and closed it"
    failed, lost = run.waiting
    return "yes; see resume" if failed or len(lost) > 1 else "yes"
