"""The pages of the operator, and the two forms on them: a yes and a no."""

from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from client.dashboard import views
from client.operator_api.messages import LOOK, Question
from shared.errors import FedVaultError
from shared.web.events import follow
from shared.web.rendering import Pages, Site
from shared.web.trouble import Shown, explained

FOLDER = Path(__file__).parent / "templates"
LOOK_EVERY_S = 3.0
NAVIGATION = (("/", "Overview"), ("/studies", "Studies"), ("/ledger", "Ledger"))
NOTE = "This page is served by your own machine to this browser alone. Nothing on it leaves; no record's text is on it."


class Asked(Protocol):
    """Answers the page's questions: the vault, behind its operator's socket."""

    def ask(self, question: Question, **arguments: Any) -> dict[str, Any]:
        """Return the answer."""


class Dashboard:
    """One node's pages.

    Guarantee: a page that was started without leave to decide has no address that decides.

    Args:
        vault: answers what the pages show, and enters what is decided.
        name: of this node, as its operator calls it.
        allow_decisions: whether studies can be approved and rejected here.
    """

    def __init__(self, vault: Asked, name: str, *, allow_decisions: bool) -> None:
        self._vault, self._allow_decisions = vault, allow_decisions
        self.pages = Pages(FOLDER, Site("node", name, NAVIGATION, NOTE))

    @property
    def routes(self) -> list[BaseRoute]:
        """The addresses of the pages, and of the forms where these are allowed."""
        shown: list[BaseRoute] = [
            Route("/", self._shown(self._overview)),
            Route("/activity", self._activity),
            Route("/studies", self._shown(self._studies)),
            Route("/study", self._shown(self._study)),
            Route("/ledger", self._shown(self._ledger)),
        ]
        decide: list[BaseRoute] = [
            Route("/approve", self._shown(self._approve), methods=["POST"]),
            Route("/reject", self._shown(self._reject), methods=["POST"]),
        ]
        return shown + (decide if self._allow_decisions else [])

    def _shown(self, page: Shown) -> Shown:
        """Return a page that says what the vault cannot do, where it cannot."""
        return explained(page, self._trouble, mended=503)

    def _trouble(self, request: Request, error: FedVaultError, status: int) -> Response:
        return self.pages.response(request, "trouble.html", status=status, error=str(error), hint=error.hint)

    def _overview(self, request: Request) -> Response:
        return self.pages.response(request, "overview.html", views=views, **self._vault.ask("overview"))

    def _activity(self, request: Request) -> Response:
        def draw() -> str:
            try:
                return self.pages.text(request, "activity.html", views=views, **self._vault.ask("activity"))
            except FedVaultError as error:
                lines = [str(error), error.hint]
                return self.pages.text(request, "activity.html", views=views, state="", lines=lines, waiting=None)

        return follow(request, draw, every_s=LOOK_EVERY_S)

    def _studies(self, request: Request) -> Response:
        return self.pages.response(request, "studies.html", views=views, **self._vault.ask("studies"))

    def _study(self, request: Request) -> Response:
        query = request.query_params
        again = "again" in query
        answer = self._vault.ask("review", run=query.get("run", ""), dataset=query.get("dataset", ""), again=again)
        here = _study_address(answer["run"], answer["dataset"])
        if again:  # loading the page once more is not to look once more
            return RedirectResponse(here, 303)
        template = "study_parts.html" if request.headers.get("hx-request") else "study.html"
        job, values = answer["job"], {"here": here, "allow_decisions": self._allow_decisions, **answer}
        # what a decision changed stands all over the page
        entered = job is not None and job["answer"] is not None and job["kind"] != LOOK
        headers = {"HX-Refresh": "true"} if request.headers.get("hx-request") and entered else {}
        return self.pages.response(request, template, headers=headers, views=views, **values)

    def _ledger(self, request: Request) -> Response:
        before = request.query_params.get("before", "")
        answer = self._vault.ask("ledger", before=int(before) if before.isdecimal() and len(before) < 10 else 0)
        return self.pages.response(request, "ledger.html", views=views, **answer)

    def _approve(self, request: Request) -> Response:
        return self._decided(request, "yes")

    def _reject(self, request: Request) -> Response:
        return self._decided(request, "no")

    def _decided(self, request: Request, answer: str) -> Response:
        form = request.state.form
        run, dataset = form.get("run", ""), form.get("dataset", "")
        self._vault.ask(
            "decide",
            run=run,
            dataset=dataset,
            answer=answer,
            by=form.get("by", ""),
            note=form.get("note", ""),
            shown=form.get("shown", ""),
            via=f"the page, {request.state.visitor}",
        )
        return RedirectResponse(_study_address(run, dataset), 303)


def _study_address(run: str, dataset: str) -> str:
    return f"/study?{urlencode({'run': run, 'dataset': dataset})}"
