"""What a node's operator does, without the command line."""

from pathlib import Path

from client.vault.review.node_files import open_node
from client.vault.review.registering import read_registration, register
from client.vault.review.review import ReviewedStudy, StudyReview
from shared.study.declaration import Study


def review_study(config: Path, study: Study, dataset: str = "ward") -> ReviewedStudy:
    """Review a study on a dataset."""
    node = open_node(config)
    return StudyReview(node).review(study, node.dataset(dataset))


def approve_study(config: Path, study: Study, run: str = "r-1", dataset: str = "ward") -> None:
    """Review a study, and say yes to it."""
    enter_approval(config, review_study(config, study, dataset), run)


def enter_approval(config: Path, reviewed: ReviewedStudy, run: str) -> None:
    """Say yes to what was reviewed."""
    node = open_node(config)
    with node.open_ledger() as ledger:
        StudyReview(node).approve(ledger, reviewed, run)


def reject_run(config: Path, run: str) -> str:
    """Say no; returns the run's full name."""
    node = open_node(config)
    with node.open_ledger() as ledger:
        return StudyReview(node).reject(ledger, run)


def register_dataset(config: Path, name: str = "ward") -> None:
    """Enter a dataset's records."""
    node = open_node(config)
    registration = read_registration(node, node.dataset(name))
    with node.open_ledger() as ledger:
        register(node, ledger, node.dataset(name), registration)
