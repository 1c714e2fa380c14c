"""Finding now what would go wrong later: each check says what it saw, and a failing one what to do."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from client.deployment import deployment
from client.operator import dataset_checks, trial
from client.operator.finding import Finding, Seen, failed, tried
from client.operator.record_checks import RecordChecks
from client.operator.server_checks import server_findings, vault_answers
from client.vault.records.dataset import Dataset
from client.vault.review.node_files import NodeFiles, open_node
from client.vault.review.review import ReviewedStudy, StudyReview
from shared.errors import FedVaultError, RunError
from shared.study.declaration import Study

LEAST_FREE_BYTES = 2 * 2**30
TRIAL = "study: gradient probe, speed, memory"


Begins = Callable[[str], None]


def examine(
    config: Path,
    study: Study | None = None,
    dataset: str | None = None,
    *,
    begins: Begins = lambda _check: None,
) -> Iterator[Finding]:
    """Make every check in order; later ones are left out where an earlier one makes them pointless.

    In two containers each half is examined in its own, and the link's asks whether the vault answers.

    Args:
        config: the node's settings.
        study: also check this one on `dataset`: labels, gradients, speed, memory.
        dataset: of node.toml.
        begins: told the name of each check before it is made, since some take long.
    """

    def look(check: str, what: Callable[[], str | Seen]) -> Finding:
        begins(check)
        return tried(check, what)

    here = deployment()
    try:
        node = open_node(config)
    except FedVaultError as error:
        yield failed("settings", error)
        return
    yield Finding("settings", True, f"{config}: datasets {', '.join(node.datasets) or 'none'}")
    if here.has_vault:
        yield look("ledger", lambda: _ledger(node))
    yield look("disk", lambda: _disk(node.folders.home if here.has_vault else node.folders.link))
    if here.has_link:
        yield from server_findings(node.folders.link, node.settings.server, config.resolve().parent, begins=begins)
    if not here.has_vault:
        yield look("vault", lambda: vault_answers(node.folders.socket))
        return
    for declared in node.datasets.values():
        yield from _dataset(node, declared, look)
    if study is not None and dataset is not None:
        yield from _study(node, study, node.dataset(dataset), look)


def for_decision(node: NodeFiles, reviewed: ReviewedStudy) -> list[Finding]:
    """Make the checks that a decision about a study needs: none of them trains, and none asks the server."""
    dataset = reviewed.dataset
    return [
        tried("ledger", lambda: _ledger(node)),
        tried("disk", lambda: _disk(node.folders.home)),
        tried(f"{dataset.name}: base models", lambda: dataset_checks.models(node, dataset)),
        tried("study: policy and budget", lambda: trial.decision(reviewed.summary)),
        tried("study: labels", lambda: trial.labels(reviewed.snapshot.facts)),
    ]


Look = Callable[[str, Callable[[], str | Seen]], Finding]


def _ledger(node: NodeFiles) -> str:
    with node.open_ledger() as ledger:
        return f"whole, {ledger.height} rows"


def _disk(folder: Path) -> str:
    free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    saw = f"{free / 2**30:.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        raise RunError(saw, hint="Free some space.")
    return saw


def _dataset(node: NodeFiles, dataset: Dataset, look: Look) -> Iterator[Finding]:
    name, records = dataset.name, cache(lambda: RecordChecks(dataset))
    yield (data := look(f"{name}: data", lambda: records().rows()))
    yield look(f"{name}: limit", lambda: dataset_checks.limit(dataset))
    if data.ok:
        yield look(f"{name}: declared size", lambda: records().size())
        if records().has_labels:
            yield look(f"{name}: labels", lambda: records().labels())
        yield look(f"{name}: copies", lambda: records().copies())
        yield look(f"{name}: held-out records", lambda: records().held_out())
    yield look(f"{name}: base models", lambda: dataset_checks.models(node, dataset))
    yield look(f"{name}: budget", lambda: dataset_checks.budget(dataset, node.ledger_state()))


def _study(node: NodeFiles, study: Study, dataset: Dataset, look: Look) -> Iterator[Finding]:
    reviewed = cache(lambda: StudyReview(node).review(study, dataset))
    yield look("study: policy and budget", lambda: trial.decision(reviewed().summary))
    yield look("study: labels", lambda: trial.labels(reviewed().snapshot.facts))
    yield look("study: room", lambda: trial.room(node, reviewed()))
    yield look(TRIAL, lambda: trial.trial(node, reviewed()))
