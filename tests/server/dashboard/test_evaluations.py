"""A run's private evaluations on its page: what `show` prints, and how they went over the rounds."""

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from server.cli.printing import print_evaluations
from server.dashboard.evaluations import evaluation_curve
from server.dashboard.site import A_PAGE
from server.private_evaluation.results import evaluations_of
from shared.private_evaluation.estimates import Estimate
from shared.private_evaluation.wording import NOT_SHOWN
from shared.study.declaration import Study
from tests.support.evaluations import evaluate
from tests.support.server_page import ServerInPieces

ROUNDS = (2, 4, 6)
DECLARED: dict[str, Any] = {
    "epsilon": 4.0,
    "rounds": list(ROUNDS),
    "keep": "best",
    "stop_after": 2,
    "subgroup": {"column": "sex", "values": ["women", "men"]},
}


@pytest.fixture
def server(tmp_path: Path, make_study: Callable[..., Study]) -> Iterator[ServerInPieces]:
    pieces = ServerInPieces(tmp_path / "federation")
    pieces.begin(make_study(evaluation=DECLARED, federation={"rounds": 9, "quorum": 2}))
    yield pieces
    pieces.store.close()


def page(server: ServerInPieces, query: str = "") -> str:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": query.encode(), "headers": []}
    shown = server.site().run(Request(scope | {"path_params": {"run": server.run}}))
    return html.unescape(bytes(shown.body).decode())


def test_the_page_says_what_show_prints(server: ServerInPieces, capsys: pytest.CaptureFixture[str]) -> None:
    for number, right in zip(ROUNDS, (0.6, 0.85, 0.84), strict=True):
        server.finish(number)
        evaluate(server, number, right, small="county-lab")
    evaluations = evaluations_of(server.store, server.store.run(server.run))
    print_evaluations(evaluations, ROUNDS[-1])
    printed, shown = capsys.readouterr().out, page(server)
    assert evaluations.of_adapter is not None and evaluations.of_adapter.number == 4, "of the adapter that is best"
    for cell in set(re.findall(r"\d\.\d{3}(?: to \d\.\d{3})?", printed)):
        assert cell in shown
    for words in ("that after round 4 is best", "is rather too high", "is handed out", "The run ends after 2."):
        assert words in printed and words in shown
    assert "site county-lab" in shown and NOT_SHOWN in shown, "what is noise has no figure"
    assert "accuracy, worst site" in shown and shown.count("<polyline") == 2, "a line for all sites and for the worst"


def test_a_run_without_an_evaluation_has_no_such_part(server: ServerInPieces) -> None:
    server.finish(1)
    assert "at the nodes</h2>" not in page(server)


def test_an_evaluation_that_ends_between_rounds_is_seen_at_the_next_look(server: ServerInPieces) -> None:
    site = server.site()
    server.finish(2)
    run = server.store.run(server.run)
    assert site.watch.history(run).evaluations is None
    evaluate(server, 2, 0.7)
    assert site.watch.history(run).evaluations is not None


def test_hundreds_of_sites_are_a_page_at_a_time(tmp_path: Path, make_study: Callable[..., Study]) -> None:
    many = ServerInPieces(tmp_path / "many", [f"node-{number:03}" for number in range(200)])
    many.begin(make_study(evaluation={"epsilon": 4.0, "rounds": [2]}, federation={"rounds": 9}))
    many.finish(2)
    evaluate(many, 2, 0.7)
    shown = page(many)
    assert shown.count("<tr") == 2 * (A_PAGE + 1) + 2, "nodes, estimates, and one round"
    first = '<th scope="row">all sites</th>'
    assert "Page 1 of 9" in shown and first in shown and first not in page(many, "estimates=8")
    many.store.close()


def test_what_is_noise_is_a_gap_in_the_chart(server: ServerInPieces) -> None:
    for number, right in zip(ROUNDS, (0.6, 0.85, 0.84), strict=True):
        evaluate(server, number, right)
    evaluated = evaluations_of(server.store, server.store.run(server.run)).all
    hidden = tuple(Estimate(scope=one.scope, name=one.name, measure=one.measure) for one in evaluated[1].estimates)
    with_gap = [evaluated[0], evaluated[1].model_copy(update={"estimates": hidden}), evaluated[2]]
    picture, full = evaluation_curve(with_gap), evaluation_curve(evaluated)
    assert picture is not None and full is not None
    assert (picture.svg.count("<circle"), full.svg.count("<circle")) == (4, 6)
    assert evaluation_curve(evaluated[:1]) is None, "one is no curve"
