"""The pages of the operator, and the forms on them: a yes, a no, a trial, and leave to continue."""

from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from client.dashboard import views
from client.operator_api.messages import LOOK, Question
from shared.errors import FedVaultError, SettingsError
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
            Route("/trial", self._shown(self._trial)),
            Route("/ledger", self._shown(self._ledger)),
        ]
        decide: list[BaseRoute] = [
            Route("/approve", self._shown(self._approve), methods=["POST"]),
            Route("/reject", self._shown(self._reject), methods=["POST"]),
            Route("/resume", self._shown(self._resume), methods=["POST"]),
            Route("/try", self._shown(self._try), methods=["POST"]),
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
        here = _address("/study", answer["run"], answer["dataset"])
        if again:  # loading the page once more is not to look once more
            return RedirectResponse(here, 303)
        template = "study_parts.html" if request.headers.get("hx-request") else "study.html"
        job, values = answer["job"], {"here": here, "allow_decisions": self._allow_decisions, **answer}
        values["trial_address"] = _address("/trial", answer["run"], answer["dataset"])
        # what a decision changed stands all over the page
        entered = job is not None and job["answer"] is not None and job["kind"] != LOOK
        headers = {"HX-Refresh": "true"} if request.headers.get("hx-request") and entered else {}
        return self.pages.response(request, template, headers=headers, views=views, **values)

    def _trial(self, request: Request) -> Response:
        query = request.query_params
        answer = self._vault.ask("trial", run=query.get("run", ""), dataset=query.get("dataset", ""))
        where = answer["run"], answer["dataset"]
        template = "trial_parts.html" if request.headers.get("hx-request") else "trial.html"
        values = {"here": _address("/trial", *where), "back": _address("/study", *where), **answer}
        return self.pages.response(request, template, views=views, allow_decisions=self._allow_decisions, **values)

    def _ledger(self, request: Request) -> Response:
        before = request.query_params.get("before", "")
        answer = self._vault.ask("ledger", before=int(before) if before.isdecimal() and len(before) < 10 else 0)
        return self.pages.response(request, "ledger.html", views=views, **answer)

    def _approve(self, request: Request) -> Response:
        return self._decided(request, "yes")

    def _reject(self, request: Request) -> Response:
        return self._decided(request, "no")

    def _decided(self, request: Request, answer: str) -> Response:
        run, dataset, form = request.state.form["run"], request.state.form["dataset"], request.state.form
        if answer == "yes" and form.get("read") != "yes":
            raise SettingsError("Expected the mark at what you have read, got none.", hint="Go back, and read it.")
        shown = form.get("shown", "")
        self._vault.ask("decide", run=run, dataset=dataset, answer=answer, shown=shown, **_who(request))
        return RedirectResponse(_address("/study", run, dataset), 303)

    def _resume(self, request: Request) -> Response:
        form = request.state.form
        if form.get("mended") != "yes":
            raise SettingsError("Expected the mark at the mended cause, got none.", hint="Go back, once it is mended.")
        self._vault.ask("resume", run=form["run"], rounds=form["rounds"], **_who(request))
        return RedirectResponse(_address("/study", form["run"], form["dataset"]), 303)

    def _try(self, request: Request) -> Response:
        run, dataset = request.state.form["run"], request.state.form["dataset"]
        self._vault.ask("begin_trial", run=run, dataset=dataset, via=_who(request)["via"])
        return RedirectResponse(_address("/trial", run, dataset), 303)


def _who(request: Request) -> dict[str, str]:
    form = request.state.form
    return {"by": form.get("by", ""), "note": form.get("note", ""), "via": f"the page, {request.state.visitor}"}


def _address(page: str, run: str, dataset: str) -> str:
    return f"{page}?{urlencode({'run': run, 'dataset': dataset})}"
