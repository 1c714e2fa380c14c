"""Finding now what would go wrong later: each check says what it saw, and a failing one what to do."""

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from client.deployment import deployment
from client.operator import dataset_checks, trial
from client.operator.finding import Finding, failed, tried
from client.operator.server_checks import server_findings, vault_answers
from client.vault.records.dataset import Dataset
from client.vault.review.node_files import NodeFiles, open_node
from client.vault.review.review import StudyReview
from shared.errors import FedVaultError
from shared.study.declaration import Study

LEAST_FREE_BYTES = 2 * 2**30


def examine(config: Path, study: Study | None = None, dataset: str | None = None) -> Iterator[Finding]:
    """Make every check in order; later ones are left out where an earlier one makes them pointless.

    In two containers each half is examined in its own, and the link's asks whether the vault answers.

    Args:
        config: the node's settings.
        study: also check this one on `dataset`: labels, gradients, speed, memory.
        dataset: of node.toml.
    """
    here = deployment()
    try:
        node = open_node(config)
    except FedVaultError as error:
        yield failed("settings", error)
        return
    yield Finding("settings", True, f"{config}: datasets {', '.join(node.datasets) or 'none'}")
    if here.has_vault:
        yield tried("ledger", lambda: _ledger(node))
    yield _disk(node.folders.home if here.has_vault else node.folders.link)
    if here.has_link:
        yield from server_findings(node.folders.link, node.settings.server, config.resolve().parent)
    if not here.has_vault:
        yield tried("vault", lambda: vault_answers(node.folders.socket))
        return
    for declared in node.datasets.values():
        yield from _dataset(node, declared)
    if study is not None and dataset is not None:
        yield from _study(node, study, node.dataset(dataset))


def _ledger(node: NodeFiles) -> str:
    with node.open_ledger() as ledger:
        return f"whole, {ledger.height} rows"


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    saw = f"{free / 2**30:.1f} GiB free"
    return Finding("disk", free >= LEAST_FREE_BYTES, saw, "Free some space: a full disk stops training.")


def _dataset(node: NodeFiles, dataset: Dataset) -> Iterator[Finding]:
    yield tried(f"{dataset.name}: data", lambda: dataset_checks.data(dataset))
    yield tried(f"{dataset.name}: base models", lambda: dataset_checks.models(node, dataset))
    yield tried(f"{dataset.name}: budget", lambda: dataset_checks.budget(dataset, node.ledger_state()))


def _study(node: NodeFiles, study: Study, dataset: Dataset) -> Iterator[Finding]:
    reviewed = cache(lambda: StudyReview(node).review(study, dataset))
    yield tried("study: policy and budget", lambda: trial.decision(reviewed().summary))
    yield tried("study: labels", lambda: trial.labels(reviewed().snapshot.facts))
    yield tried("study: gradient probe, speed, memory", lambda: trial.trial(node, reviewed()))
