"""CPU and bytes of a secure sum by the session alone: the table of SECURITY_ARGUMENT.md.

`pytest --log-cli-level=INFO` shows it.
"""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from shared.secure_sum.thresholds import Thresholds
from tests.support.secure_sums import Sum


class Costs(NamedTuple):
    """Milliseconds of CPU: of a node for its three answers, of the server for all it does."""

    mask: float
    sign: float
    answer: float
    server: float
    masked_bytes: int
    question_bytes: int
    answer_bytes: int

    def row(self, nodes: int, length: int, missing: int) -> str:
        """A row of the page's table."""
        times = f"{self.mask:.0f} ms | {self.sign:.1f} ms | {self.answer:.0f} ms | {self.server / 1000:.2f} s"
        sizes = f"{self.masked_bytes - 8 * length:,} + {self.question_bytes:,} + {self.answer_bytes:,}"
        return f"| {nodes} | {length:,} | {missing} | {times} | {sizes} |"


def measured(nodes: int, length: int, missing: int) -> Costs:
    run = Sum(Thresholds.by_default(nodes), length=length)
    session, context, survivors = run.session, run.context(), run.names[missing:]
    spent = {"node": 0.0, "server": 0.0}

    def timed(who: str, work: Callable[[], object]) -> object:
        start = time.process_time()
        done = work()
        spent[who] += time.process_time() - start
        return done

    def per_node() -> float:
        seconds, spent["node"] = spent["node"], 0.0
        return 1000 * seconds / len(survivors)

    for name in survivors:
        message = timed("node", lambda: run.nodes[name].vector(context, run.values[name]))  # noqa: B023
        timed("server", lambda: session.add_masked(name, message))  # type: ignore[arg-type]  # noqa: B023
    mask = per_node()
    timed("server", session.fix)
    for name in survivors:
        reply = timed("node", lambda: run.nodes[name].sign(context, session.survivors_question()))  # noqa: B023
        timed("server", lambda: session.add_signature(name, reply))  # type: ignore[arg-type]  # noqa: B023
    sign = per_node()
    for name in survivors:
        question = timed("server", lambda: session.opening_question(name))  # noqa: B023
        opening = timed("node", lambda: run.nodes[name].open(context, question))  # type: ignore[arg-type]  # noqa: B023
        timed("server", lambda: session.add_opening(name, opening))  # type: ignore[arg-type]  # noqa: B023
    timed("server", session.open)
    assert np.array_equal(session.total, run.expected(survivors))
    sizes = (len(part) for part in (message, question, opening))  # type: ignore[arg-type]
    return Costs(mask, sign, per_node(), 1000 * spent["server"], *sizes)


@pytest.mark.parametrize(
    ("nodes", "length", "missing"),
    [(4, 147_456, 0), (4, 147_456, 1), (10, 147_456, 1), pytest.param(100, 40_000, 5, marks=pytest.mark.slow)],
)
def test_a_sum_costs_a_node_and_the_server_seconds_at_most(nodes: int, length: int, missing: int) -> None:
    costs = measured(nodes, length, missing)
    logging.getLogger(__name__).info(costs.row(nodes, length, missing))
    assert costs.masked_bytes - 8 * length < 200 + 115 * nodes
    assert max(costs.question_bytes, costs.answer_bytes) < 500 + 300 * nodes
    assert costs.mask + costs.sign + costs.answer < 20_000
    assert costs.server < 60_000
