"""The answers to what the operator's page asks: what the commands print, as plain values."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.evidence.history import history
from client.operator.doctor import for_decision
from client.operator.forgetting import forget_ended
from client.operator.ledger_report import figures
from client.operator.ledger_text import why
from client.operator.status import metric_lines, node_status, waiting
from client.operator.status_text import in_sentences
from client.operator_api.messages import LOOK, Question
from client.operator_service.jobs import Jobs, OnStage
from client.operator_service.studies import offered_run, study_rows, sum_lines
from client.operator_service.trial import try_apart
from client.vault.ledger.rows import decided
from client.vault.ledger.state import LedgerState
from client.vault.review.node_files import NodeFiles, open_node
from client.vault.review.offers import Offered
from client.vault.review.peers import as_plain, known_peers
from client.vault.review.resuming import resume, stalled
from client.vault.review.review import ReviewedStudy, StudyReview
from shared.errors import PolicyRefusal, SettingsError

log = logging.getLogger(__name__)
ROWS = 200
"""Of the ledger, on one page."""
MOST_MEASURED = 1000

Answer = dict[str, Any]


class Questions:
    """Answers about one node; its settings are read anew for each question.

    Guarantee: no answer to the operator's page holds a cell of a record.

    Args:
        config: the node's settings.
        jobs: works on what takes long.
        trials: works on what takes longer, so that no decision waits for it.
    """

    def __init__(self, config: Path, jobs: Jobs, trials: Jobs) -> None:
        self._config, self._jobs, self._trials = config, jobs, trials

    def answer(self, question: Question, arguments: Answer) -> Answer:
        """Return the answer to a question.

        Raises:
            FedVaultError: what the operator has to know or to do first.
        """
        answers: dict[Question, Callable[..., Answer]] = {
            "overview": self._overview,
            "activity": self._activity,
            "studies": self._studies,
            "review": self._review,
            "decide": self._decide,
            "ledger": self._ledger,
            "trial": self._trial,
            "begin_trial": self._begin_trial,
            "resume": self._resume,
        }
        return answers[question](open_node(self._config), **arguments)

    def _activity(self, node: NodeFiles) -> Answer:
        facts = node_status(node.folders)
        # what waits, and the figures, have places of their own on the page
        lines = in_sentences(facts | {"local_metrics": [], "waiting": None})
        return {"state": facts["state"], "lines": lines, "waiting": facts["waiting"]}

    def _overview(self, node: NodeFiles) -> Answer:
        names = {offered.run: offered.study.study for offered in node.offers.all()}
        undecided = waiting(node.folders)["decide"]
        accounts: Answer = figures(node)["datasets"] if node.folders.ledger.exists() else {}
        released = [row for row in _rows(node) if row["kind"] == "commit"]
        return {
            **self._activity(node),
            "decide": [
                {"run": run, "study": names[run].name, "purpose": names[run].stated_purpose} for run in undecided
            ],
            "datasets": accounts,
            "undeclared": sorted(set(node.datasets) - set(accounts)),
            "left": {"count": len(released), "latest": released[-5:][::-1]},
            "measured": metric_lines(node.folders)[-MOST_MEASURED:],
        }

    def _studies(self, node: NodeFiles) -> Answer:
        return {"studies": study_rows(node), "damaged": [f"{error} {error.hint}" for error in node.offers.damaged()]}

    def _ledger(self, node: NodeFiles, before: int = 0) -> Answer:
        report, rows = figures(node), _rows(node)
        shown = [row for row in rows if not before or row["row"] < before][-ROWS:][::-1]
        accounts = report["datasets"]
        return {
            "rows": report["rows"],
            "head": report["head"],
            "unproven": report["unproven"],
            "datasets": accounts,
            "runs": {
                name: run | {"why": why(name, run, accounts[run["dataset"]])} for name, run in report["runs"].items()
            },
            "shown": shown,
            "earlier": shown[-1]["row"] if shown and shown[-1]["row"] > rows[0]["row"] else 0,
        }

    def _review(self, node: NodeFiles, run: str, dataset: str = "", again: bool = False) -> Answer:
        offered = offered_run(node, run)
        chosen = dataset or next(iter(node.datasets), "")
        state, key = node.ledger_state(), _key(offered.run, chosen)
        if again:
            self._jobs.clear(key)
        job, trial = self._jobs.latest(key), self._trials.latest(key)
        approved = state.runs.get(offered.run)
        over = approved is not None or state.answer(offered.run) == "no"
        if job is None and chosen and not (approved is not None):
            self._jobs.start(key, LOOK, lambda on_stage: self._look(offered, chosen, on_stage))
            job = self._jobs.latest(key)
        (row,) = [row for row in study_rows(node) if row["run"] == offered.run]
        return {
            "run": offered.run,
            "study": offered.study.study.model_dump() | {"purpose": offered.study.study.stated_purpose},
            "unstated": list(offered.study.study.unstated),
            "sha256": offered.study.sha256,
            "row": row,
            "dataset": chosen if approved is None else approved.dataset,
            "datasets": list(node.datasets),
            "decided": over,
            "open": approved is not None and not approved.closed,
            "history": [line for line in _rows(node) if line["run"] == offered.run],
            "stalled": stalled(state, offered.run) if approved is not None and _is_stalled(state, offered.run) else "",
            "trial": None if trial is None else trial.plain,
            "job": None if job is None else job.plain,
        }

    def _look(self, offered: Offered, dataset: str, on_stage: OnStage) -> Answer:
        node = open_node(self._config)
        review = StudyReview(node, on_stage)
        reviewed = review.review(offered.study, node.dataset(dataset))
        on_stage("Looking at what a decision needs", 4, 4)
        account = figures(node)["datasets"].get(dataset, {})
        trust = _trust(node, offered.run, reviewed)
        return {
            "summary": _plain(reviewed),
            "shown": _digest(reviewed, trust),
            "spent": account.get("spent", 0.0),
            "ways": review.ways_to_send(offered.study),
            **trust,
            "findings": [asdict(one) | {"state": one.state, "notes": []} for one in for_decision(node, reviewed)],
        }

    def _decide(
        self, node: NodeFiles, run: str, dataset: str, answer: str, by: str, note: str, via: str, shown: str = ""
    ) -> Answer:
        offered, words = offered_run(node, run), _named(by, note, via)
        work: Callable[[OnStage], Answer]
        if answer == "yes":
            kind, work = "approve", lambda on_stage: self._approve(offered, dataset, words, shown, on_stage)
        else:
            kind, work = "reject", lambda on_stage: self._reject(offered, words, on_stage)
        log.info("%s says %s to %s on %s.", words["by"], answer, offered.run, words.get("via", "the operator's socket"))
        if not self._jobs.start(_key(offered.run, dataset), kind, work):
            raise PolicyRefusal("Expected one thing at a time, this study is being looked at.", hint="Wait a moment.")
        return {"started": kind}

    def _approve(self, offered: Offered, dataset: str, words: dict[str, str], shown: str, on_stage: OnStage) -> Answer:
        node = open_node(self._config)
        review = StudyReview(node, on_stage)
        reviewed = review.review(offered.study, node.dataset(dataset))
        if _digest(reviewed, _trust(node, offered.run, reviewed)) != shown:
            raise PolicyRefusal(
                "Expected the study as it was shown to you, but records, policy, ledger or peers have changed since.",
                hint="Look at it again, then decide.",
            )
        on_stage("Entering the approval", 4, 4)
        with node.open_ledger() as ledger:
            review.approve(ledger, reviewed, offered.run, words)
            return {"done": f"Approved. Row {ledger.height} of the ledger, {ledger.head[:16]}."}

    def _trial(self, node: NodeFiles, run: str, dataset: str) -> Answer:
        offered, chosen = offered_run(node, run), node.dataset(dataset).name
        job = self._trials.latest(_key(offered.run, chosen))
        name = offered.study.study.name
        return {"run": offered.run, "study": name, "dataset": chosen, "job": None if job is None else job.plain}

    def _begin_trial(self, node: NodeFiles, run: str, dataset: str, via: str) -> Answer:
        offered, chosen = offered_run(node, run), node.dataset(dataset).name

        def work(on_stage: OnStage) -> Answer:
            return try_apart(self._config, offered.run, chosen, on_stage, lambda: self._trials.closed)

        log.info("%s is tried on %s; asked for on %s.", offered.run, chosen, via)
        if not self._trials.start(_key(offered.run, chosen), "trial", work):
            raise PolicyRefusal("Expected one trial at a time, this one is under way.", hint="Wait for it.")
        return {"started": "trial"}

    def _resume(self, node: NodeFiles, run: str, rounds: str, by: str, note: str, via: str) -> Answer:
        words = _named(by, note, via)
        log.info("%s resumes %s on %s.", words["by"], run, via)
        with node.open_ledger() as ledger:
            return {"done": resume(ledger, run, rounds, words)}

    def _reject(self, offered: Offered, words: dict[str, str], on_stage: OnStage) -> Answer:
        node = open_node(self._config)
        on_stage("Entering the rejection", 0, 2)
        with node.open_ledger() as ledger:
            StudyReview(node).reject(ledger, offered.run, words)
            row = f"Row {ledger.height} of the ledger, {ledger.head[:16]}."
        on_stage("Waiting for the vault to forget the run's records", 1, 2)
        forget_ended(node)
        return {"done": f"Rejected. {row}"}


def _named(by: str, note: str, via: str) -> dict[str, str]:
    words = decided(by, note, via)
    if not words.get("by"):
        raise SettingsError("Expected the name of who decides, got none.", hint="It goes into the ledger's row.")
    return words


def _is_stalled(state: LedgerState, run: str) -> bool:
    """Return true if a person has to look before a run goes on; one lost round may be the one that is trained now."""
    return run in state.troubles(state.run(run).dataset)


def _rows(node: NodeFiles) -> list[Answer]:
    return history(node) if node.folders.ledger.exists() else []


def _plain(reviewed: ReviewedStudy) -> Answer:
    """Return a summary without what quotes cells: how many rows something is wrong with stays."""
    plain = asdict(reviewed.summary)
    plain["records"] |= {"problems": len(reviewed.snapshot.problems)}
    return plain


def _trust(node: NodeFiles, run: str, reviewed: ReviewedStudy) -> Answer:
    """Return who sees what of a run: its secure sum, and the other nodes as the server names them now."""
    secure_sum = reviewed.study.federation.secure_sum
    return {
        "secure_sum": secure_sum,
        "sums": sum_lines(node, reviewed.study, run, reviewed.rules),
        "peers": as_plain(known_peers(node, run)) if secure_sum else [],
        "colluders": reviewed.rules.colluders,
    }


def _digest(reviewed: ReviewedStudy, trust: Answer) -> str:
    """Return a digest of all that somebody who decides was shown."""
    shown = [asdict(reviewed.summary), trust]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def _key(run: str, dataset: str) -> str:
    return json.dumps([run, dataset])
