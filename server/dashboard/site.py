"""Addresses of the server's page, and what each shows."""

import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from server.certificate_authority import node_certificate_ends
from server.dashboard.confirmed import Actions, Done
from server.dashboard.downloads import adapter_archive, adapter_card, signed_report
from server.dashboard.evaluations import evaluation_curve, evaluation_lines, evaluation_rows, evaluation_table
from server.dashboard.history import quality_curve, rounds_table, run_cards, spent_by_node, study_facts, trust_sentence
from server.dashboard.nodes import counted
from server.dashboard.under_way import in_time, listed
from server.dashboard.watch import Watch
from server.operator.actions import Operator, note, this_user
from server.operator.round_text import event_line, node_names
from server.operator.status_text import OVER, certificate_lines, server_lines
from server.private_evaluation.results import RunEvaluations
from server.run_store.values import Run
from shared.errors import FedVaultError, PolicyRefusal
from shared.evidence.figures import moment
from shared.evidence.signed_report import FORMS
from shared.private_evaluation.wording import LEGEND, left_out
from shared.web.events import follow
from shared.web.rendering import Pages, Site
from shared.web.trouble import Shown, explained

TEMPLATES = Path(__file__).parent / "templates"
A_PAGE = 50
"""Rows of a table on one page, so that hundreds of nodes and thousands of rounds cost no more than fifty."""
LOG, LATEST, REFUSED = 100, 12, 403
NAVIGATION = (("/", "Now"), ("/nodes", "Nodes"), ("/runs", "Runs"), ("/log", "Log"))
NOTE = "This page is open on this machine alone. Whatever is done here stands in the log, with who and from where."
NOTE_ELSEWHERE = "This page is open to operators with a certificate. The log has what each does, and from where."


def server_pages(instance: str, *, root: str = "") -> Pages:
    """Return the templates of a server's page; `root` stands before its paths where a gateway passes them on."""
    return Pages(TEMPLATES, Site("server", instance, NAVIGATION, NOTE_ELSEWHERE if root else NOTE, root))


class ServerSite:
    """The page of one server.

    Args:
        watch: looks at it.
        pages: templates.
        elsewhere: whoever operates it sits at another machine, and names files in the server's folder alone.
    """

    def __init__(self, watch: Watch, pages: Pages, *, elsewhere: bool = False) -> None:
        self.watch, self._pages, self._store, self._home = watch, pages, watch.store, watch.home
        self._actions, self._elsewhere = Actions(watch.home, watch.store, elsewhere=elsewhere), elsewhere
        self._done = dict[str, Done]()

    def routes(self) -> list[Route]:
        """Return every address of the page."""
        shown: Mapping[str, Shown] = {
            "/": self.now,
            "/live": self.live,
            "/nodes": self.nodes,
            "/runs": self.runs,
            "/runs/{run}": self.run,
            "/runs/{run}/adapter.zip": self.adapter,
            "/runs/{run}/card": self.card,
            "/runs/{run}/report.{form}": self.report,
            "/log": self.log,
            "/confirm/{action}": self.confirm,
            "/done/{what}": self.done,
        }
        written: Mapping[str, Shown] = {"/do/{action}": self.do}
        return [
            *(Route(path, explained(show, self._trouble)) for path, show in shown.items()),
            *(Route(path, explained(do, self._trouble), methods=["POST"]) for path, do in written.items()),
        ]

    def now(self, request: Request) -> Response:
        """Show the federation at a glance."""
        facts = self.watch.facts()
        sizes = [("Free on the disk", _gib(self.watch.free_bytes())), ("Flower's database", _mib(facts))]
        lines = {"server": server_lines(facts), "certificates": certificate_lines(facts)}
        trouble = facts["state"] not in ("runs", "starting")
        return self._shown(request, "now.html", sizes=sizes, lines=lines, trouble=trouble, **self._live())

    def live(self, request: Request) -> Response:
        """Send the run in progress again whenever something of it has changed."""
        return follow(request, lambda: self._pages.text(request, "live.html", **self._live()))

    def nodes(self, request: Request) -> Response:
        """Show every node, those first that need an eye."""
        lines = self.watch.nodes()
        page, pages = _paged(request, len(lines))
        ends = {
            line.name: "-" if end is None else f"{end:%Y-%m-%d}"
            for line in lines[page * A_PAGE :][:A_PAGE]
            for end in [node_certificate_ends(self._home.keys, line.name)]
        }
        return self._shown(
            request,
            "nodes.html",
            lines=lines[page * A_PAGE :][:A_PAGE],
            ends=ends,
            counted=counted(lines),
            page=page,
            pages=pages,
        )

    def runs(self, request: Request) -> Response:
        """Show the queue, and every run that there was."""
        runs, first = self._store.runs(), self._store.next_wanted()
        page, pages = _paged(request, len(runs))
        ahead = None if first is None else first.id
        rows = [(run, run.standing(ahead), moment(run.created)) for run in runs[page * A_PAGE :][:A_PAGE]]
        return self._shown(request, "runs.html", rows=rows, count=len(runs), page=page, pages=pages)

    def run(self, request: Request) -> Response:
        """Show one run: cost, trust, quality, and its rounds."""
        run = self._store.run(request.path_params["run"])
        history, names = self.watch.history(run), node_names(self._store)
        page, pages = _paged(request, run.round)
        newest = run.round - page * A_PAGE
        rounds = self._store.rounds(run.id, after=max(0, newest - A_PAGE), most=min(A_PAGE, max(0, newest)))
        report = history.report
        houses = 0 if report is None else len(report.houses)
        at, of = _paged(request, houses, "nodes")
        return self._shown(
            request,
            "run.html",
            run=run,
            over=run.state in OVER,
            standing=run.standing(None),
            problem=history.problem,
            cards=None if report is None else run_cards(report),
            trust="" if report is None else trust_sentence(report),
            facts=None if report is None else study_facts(report),
            spent=None if report is None or not houses else spent_by_node(report, first=at * A_PAGE, most=A_PAGE),
            spent_page=at,
            spent_pages=of,
            curve=quality_curve(history.points, history.metric),
            **self._evaluated(request, run, history.evaluations),
            rounds=rounds_table(rounds, names),
            page=page,
            pages=pages,
            events=[event_line(event, names) for event in self._store.latest_events(run.id, most=LATEST)][::-1],
            forms=FORMS,
        )

    def _evaluated(self, request: Request, run: Run, evaluations: RunEvaluations | None) -> dict[str, Any]:
        """Return what the page of a run says of its private evaluations."""
        shown = None if evaluations is None else evaluations.of_adapter
        at, of = _paged(request, 0 if shown is None else len(evaluation_rows(shown)), "estimates")
        more = "" if shown is None else left_out(shown.estimates)
        return {
            "evaluated": [] if evaluations is None else evaluation_lines(evaluations, run.round),
            "evaluated_curve": None if evaluations is None else evaluation_curve(evaluations.all),
            "estimates": None if shown is None else evaluation_table(shown, first=at * A_PAGE, most=A_PAGE),
            "estimates_page": at,
            "estimates_pages": of,
            "legend": f"{LEGEND} {more}",
        }

    def adapter(self, request: Request) -> Response:
        """Hand out a finished adapter, to whom may act."""
        _require_action(request)
        answer = adapter_archive(self._home, self._store, request.path_params["run"])
        note(self._store, _operator(request), "download", run=request.path_params["run"], what="adapter")
        return answer

    def card(self, request: Request) -> Response:
        """Hand out a finished adapter's card."""
        return adapter_card(self._home, self._store, request.path_params["run"])

    def report(self, request: Request) -> Response:
        """Hand out a run's signed report."""
        history = self.watch.history(self._store.run(request.path_params["run"]))
        if history.report is None:
            return self._shown(request, "problem.html", status=409, problem=history.problem, hint="")
        issued = history.report.model_copy(update={"issuer": self._home.settings().hosts[0]})
        return signed_report(self._home, issued, request.path_params["form"])

    def log(self, request: Request) -> Response:
        """Show what operators did."""
        events = self._store.operator_events(most=LOG)
        rows = [
            (
                moment(event.time),
                event.kind,
                event.body.get("who", ""),
                event.body.get("from", ""),
                _details(event.body),
            )
            for event in events
        ]
        return self._shown(request, "log.html", rows=rows, most=LOG)

    def confirm(self, request: Request) -> Response:
        """Ask before something is done."""
        _require_action(request)
        action, form = request.path_params["action"], dict(request.query_params)
        question = self._actions.ask(action, form)
        carried = {name: value for name, value in (form | dict(question.carries)).items() if name != "token"}
        return self._shown(request, "confirm.html", action=action, question=question, carried=carried)

    def do(self, request: Request) -> Response:
        """Do what was confirmed; what came of it has an address of its own, and loading that does nothing."""
        _require_action(request)
        done = self._actions.do(request.path_params["action"], request.state.form, _operator(request))
        while len(self._done) >= LATEST:
            del self._done[next(iter(self._done))]
        what = secrets.token_urlsafe(16)
        self._done[what] = done
        return RedirectResponse(f"{self._pages.site.root}/done/{what}", 303)

    def done(self, request: Request) -> Response:
        """Show what came of an action; of one long ago, the log does."""
        done, log = self._done.get(request.path_params["what"]), f"{self._pages.site.root}/log"
        return RedirectResponse(log, 303) if done is None else self._shown(request, "done.html", done=done)

    def _live(self) -> dict[str, Any]:
        live = self.watch.live()
        return {
            "live": live,
            "counted": counted(live.nodes),
            "eyes": [line for line in live.nodes if line.standing in ("late", "away")][:8],
            "time_left": in_time(live.minutes),
            "waits_for": "" if live.round is None else listed(live.round.waits_for),
            "gone": "" if live.round is None else listed(live.round.gone),
        }

    def _shown(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        return self._pages.response(request, template, status=status, elsewhere=self._elsewhere, **values)

    def _trouble(self, request: Request, error: FedVaultError, status: int) -> Response:
        status = REFUSED if isinstance(error, PolicyRefusal) else status
        return self._shown(request, "problem.html", status=status, problem=str(error), hint=error.hint or "")


def _operator(request: Request) -> Operator:
    return Operator(request.state.who or this_user(), f"page, {request.state.visitor}")


def _require_action(request: Request) -> None:
    """Return if who asks may act.

    Raises:
        PolicyRefusal: who asks may only look.
    """
    if not request.state.may_act:
        raise PolicyRefusal(
            f"Expected an operator who may act, {request.state.who} may look.",
            hint="A certificate of another kind is for that: fedvault-server operator NAME --allow-actions",
        )


def _paged(request: Request, count: int, name: str = "page") -> tuple[int, int]:
    """Return which page is asked for, from 0, and how many there are."""
    pages, asked = max(1, math.ceil(count / A_PAGE)), request.query_params.get(name, "0")
    return (min(int(asked), pages - 1) if asked.isdecimal() and len(asked) < 7 else 0), pages


def _details(body: Mapping[str, Any]) -> str:
    rest: Sequence[tuple[str, Any]] = [(name, value) for name, value in body.items() if name not in ("who", "from")]
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in rest if value not in ("", False))


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _mib(facts: Mapping[str, Any]) -> str:
    return f"{facts['flower_database_bytes'] / 2**20:.1f} MiB"
