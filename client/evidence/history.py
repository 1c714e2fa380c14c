"""Tell a node's ledger as sentences, one for each row, oldest first; and when personal adapters were made."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from client.vault.ledger.damage import examine
from client.vault.ledger.lock import ledger_lock
from client.vault.ledger.rows import EVALUATION, UNDECLARED
from client.vault.review.node_files import LEDGER_PATIENCE_S, NodeFiles
from shared.errors import SettingsError
from shared.evidence.figures import moment
from shared.printable import one_line

SENTENCES = {
    "register": "{dataset} was registered: at most epsilon {epsilon:g} at delta {delta:g} for every {unit}, over all "
    "studies.",
    "records": "Records of {dataset} were entered{tied}.",
    "tie": "{dataset} and {other} turned out to share records: they are one account.",
    "approve": "Run {run} was approved for {dataset}{by}{via}: {rounds} rounds of study {study}{evaluated}{note}.",
    "reject": "Run {run} was turned down{by}{via}{note}.",
    "reserve": "Round {round} of {run} was charged, before it was trained.",
    "fail": "Round {round} of {run} failed; it stays charged, and nothing left.",
    "commit": "Round {round} of {run} left this house: update {released}.",
    "evaluation": "The evaluation of {run} after round {number} was charged, before a held-out record was read.",
    "evaluation-failed": "The evaluation of {run} after round {number} failed; it stays charged, and no count left.",
    "evaluated": "Noisy counts over held-out records, of {run} after round {number}, left this house: {released}.",
    "roster": "The members of {run}'s secure sum were fixed.",
    "survivors": "Who is part of the sum of {summed} {round} of {run} was fixed.",
    "resume": "The operator{named} looked at {looked_at} of {run}, which failed or were lost{note}.",
    "close": "Run {run} was closed: what it had earmarked and not used is free again.",
    "withdraw": "{dataset} was withdrawn: nothing more is trained on its records.",
    "accept": "The operator went on although rows were missing; nothing was given back.",
    "date": "The operator accepted the date of row {row}, which a clock had set ahead.",
}
"""By the kind of a row; every kind that a ledger holds has one."""
PERSONAL = (
    "A personal adapter was trained WITHOUT PRIVACY on {dataset}, from the finished one of {run}, for this node's own "
    "eyes: nothing left this house, and nothing was charged."
)


def history(node: NodeFiles) -> list[dict[str, Any]]:
    """Return every row that follows from the one before, each with its height, time, kind, run and sentence.

    Raises:
        SettingsError: there is no ledger yet.
    """
    places = node.folders
    if not places.ledger.exists():
        raise SettingsError("Expected a ledger, got none.", hint="It begins with: fedvault-node register")
    with ledger_lock(places.ledger, patience_s=LEDGER_PATIENCE_S):
        rows = examine(places.ledger, places.second_copy).unbroken
    of_ledger = [
        {
            "row": fields["height"],
            "time": fields["time"],
            "kind": fields["kind"],
            "run": fields.get("run", ""),
            "sentence": sentence(fields),
        }
        for fields in (row.as_dict() for row in rows)
    ]
    return in_order(of_ledger, _personal(places.personal_log))


def in_order(of_ledger: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put what no row holds behind the last row that is not younger; rows keep their order, whatever clocks said."""
    together = list(of_ledger)
    for other in sorted(others, key=lambda one: str(one["time"]), reverse=True):
        older = [place for place, row in enumerate(of_ledger, start=1) if str(row["time"]) <= str(other["time"])]
        together.insert(older[-1] if older else 0, other)
    return together


def _personal(path: Path) -> list[dict[str, Any]]:
    """Return when personal adapters were made: in no row of the ledger, whose height is told to the server."""
    made = list[dict[str, Any]]()
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            named = {name: one_line(str(entry[name])) for name in ("run", "dataset")}
            words = PERSONAL.format(**named)
            made.append(
                {"row": None, "time": str(entry["time"]), "kind": "personalise", "run": entry["run"], "sentence": words}
            )
    return made


def sentence(row: Mapping[str, Any]) -> str:
    """Return what a row of the ledger says."""
    words = {name: one_line(value) if isinstance(value, str) else value for name, value in row.items()}
    ties = ", ".join(map(one_line, row.get("ties", ())))
    via = f", on {words['via']}" if row.get("via") else ""
    words |= {
        "via": via,
        "named": f" ({words['by']}{via})" if row.get("by") else "",
        "unit": row.get("unit", UNDECLARED.unit),
        "tied": f"; they share some with {ties}" if ties else "",
        "by": f" by {words['by']}" if row.get("by") else "",
        "note": f' ("{words["note"]}")' if row.get("note") else "",
        "study": str(row.get("study_sha256", ""))[:16],
        "released": str(row.get("released_sha256", ""))[:16],
        "other": one_line(str(row.get("other", "another dataset"))),
    }
    words["summed"] = "the evaluation after round" if row.get("purpose") == EVALUATION else "round"
    words["looked_at"] = _looked_at(row)
    words["evaluated"] = _evaluated(row)
    return SENTENCES[row["kind"]].format(**words)


def _looked_at(row: Mapping[str, Any]) -> str:
    """Return which rounds and evaluations the row of a person's look names."""
    parts = {"rounds": row.get("rounds"), "evaluations after rounds": row.get("evaluations")}
    named = {what: numbers for what, numbers in parts.items() if isinstance(numbers, list) and numbers}
    return " and ".join(f"{what} {', '.join(map(str, numbers))}" for what, numbers in named.items())


def _evaluated(row: Mapping[str, Any]) -> str:
    """Return which evaluations the row of an approval names; nothing if it names none."""
    if "evaluation" not in row:
        return ""
    return f", with evaluations on held-out records after rounds {', '.join(map(str, row['evaluation']['numbers']))}"


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows as a terminal shows them."""
    return [f"{row['row'] or '-':>5}  {moment(row['time'])}  {row['sentence']}" for row in rows]
