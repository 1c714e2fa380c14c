"""A node with a vault's operator's socket, its page behind a real port, and studies that wait for an answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.dashboard.app import Dashboard
from client.operator_api.asking import OperatorClient
from client.operator_service.service import serving_operator
from client.vault.review.node_files import NodeFiles, open_node
from shared.protocol.messages import Peer, StudyOffer
from shared.study.declaration import Study
from tests.support.web import OpenSite, open_site

PURPOSE = {
    "purpose": "To find letters that a physician should read first, so that nobody waits for an answer who must not.",
    "requester": "St Mary's Hospital, department of medical informatics",
    "contact": "dpo@st-mary.example",
    "legal_basis": "Art. 9(2)(j) GDPR with the ethics vote 2026-114",
    "retention": "five years, by St Mary's Hospital",
}


@dataclass
class OperatorsPage:
    """A node, its page, and the questions that the page asks."""

    config: Path
    site: OpenSite
    vault: OperatorClient

    @property
    def node(self) -> NodeFiles:
        return open_node(self.config)


def show_study(config: Path, study: Study, run: str, peers: tuple[Peer, ...] = ()) -> None:
    """Keep a study as the server would show it."""
    open_node(config).offers.receive(StudyOffer(run, study.canonical_json(), peers=peers))


@contextmanager
def operators_page(config: Path, *, allow_decisions: bool = True, name: str = "north") -> Iterator[OperatorsPage]:
    """Serve the operator's socket of a node, and its page."""
    with serving_operator(config) as socket:
        vault = OperatorClient(socket)
        page = Dashboard(vault, name, allow_decisions=allow_decisions)
        try:
            with open_site(page.routes, page.pages) as site:
                yield OperatorsPage(config, site, vault)
        finally:
            vault.close()


def finished(vault: OperatorClient, run: str, dataset: str, within_s: float = 60.0) -> dict[str, Any]:
    """Ask for a study until its job has ended; returns what came of it."""
    from simulations.e2e.federation import wait_until

    def answered() -> Any:
        job = vault.ask("review", run=run, dataset=dataset)["job"]
        return job["answer"] if job else None

    answer: dict[str, Any] = wait_until(answered, f"the job of {run}", timeout_s=within_s)
    return answer
