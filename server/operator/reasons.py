"""Say in words why a node took no part in a round, or why its update was not used.

The lists are closed: a code is all that a node sends, and no code says anything about its records.
"""

from typing import Any

OF_STATUS = {
    "failed": "training failed there after it was paid for; the cause stays in that node's own log",
    "refused_study": "the study differs from the one that was approved there, or cannot be read",
    "refused_version": "its FedVault speaks other versions of the protocol: the older side must be updated",
    "refused_size": "its dataset is smaller than the study asks for",
    "refused_exactness": "its machine does not compute each record's own gradient exactly with this model",
    "refused_real_data": "it holds real data and runs where only simulations may run",
    "refused_budget": "the study does not fit into what its records may still spend",
    "refused_policy": "its policy, its approvals or its settings do not allow it; its operator's log says which",
    "refused_ledger": "its ledger cannot be trusted or written, so nothing can be paid for",
    "lost": "it paid for this round and lost the update, by a crash for instance; it sits the round out",
    "refused_hours": "its hours for training are over for now",
    "awaiting_approval": "its operator has not decided yet",
    "approved": "it has approved the study",
    "rejected": "its operator said no",
    "refused_model": "the base model is not there, is damaged or another one, or does not fit the study",
    "refused_adapter": "the adapter it was sent lies beyond what honest rounds lead to",
    "refused_roster": "its policy does not take these nodes together in a secure sum, or its own entry is not valid",
    "refused_survivors": "it signed another set of survivors for this round",
    "out_of_secure_sum": "its keys of this run are gone, by a restored backup for instance: it is out of the run",
    "refused_evaluation": "the study declares no such evaluation, or it has evaluated another adapter before",
}
OF_REASON = {
    "node-error": "its Flower client failed before FedVault was asked",
    "malformed": "its reply cannot be read",
    "oversized": "its reply has more or larger parts than a reply of the study can have",
    "wrong-study": "its reply is about another study, run or round",
    "stale": "its update starts from another adapter than the one it was sent",
    "shape": "its update has another length or encoding than the study's",
    "not-finite": "its update holds values that are no numbers",
    "no-movement": "its update is all zeros",
    "norm": "its update is larger than noise and clipping can make it",
    "stranger": "it was not asked",
    "duplicate": "it had answered already, and the first answer counts",
}
OF_DOUBT = {
    "quiet": "its update was used, but is quieter than the noise it declares: its own records may be unprotected",
}
"""Why an update that was used needs a person's look all the same."""
_BY_CODE = OF_STATUS | OF_REASON | OF_DOUBT


def in_words(code: str) -> str:
    """Return a code's meaning with the code behind it; a code of another version stays as it is."""
    return f"{_BY_CODE[code]} ({code})" if code in _BY_CODE else code


def reasons_of(record: dict[str, Any]) -> list[tuple[Any, str]]:
    """Return each node that took no part in a round, or whose update was not used or needs a look, with the code."""
    refused = [(entry["node"], entry["status"]) for entry in record["refused"]]
    rejected = [(entry["node"], entry["reason"]) for entry in record["rejected"]]
    return refused + rejected + [(node, "quiet") for node in record.get("quiet", [])]
