"""The end of a certificate is announced sixty days before, in words, in the log and as a metric."""

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.certificate_authority import NODE_LIFETIME, create, issue_server, keep_node_certificate
from server.certificate_ends import CertificateEnd, announce_daily, certificate_ends, due_lines, operator_lines
from server.gateway.metrics import build_metrics_app
from server.run_store.store import Store

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create(tmp_path / "keys", "federation", now=NOW)
    issued = issue_server(tmp_path / "keys", ["a"], now=NOW)
    keep_node_certificate(tmp_path / "keys", "../ward", issued.certificate.read_bytes())
    return tmp_path / "keys"


def lines(keys: Path, days: int) -> list[str]:
    return list(due_lines(certificate_ends(keys, ["../ward", "of an earlier version"]), NOW + days * DAY))


def test_each_certificate_is_announced_sixty_days_before_its_end_and_not_earlier(keys: Path) -> None:
    assert lines(keys, 336) == []
    server, node = lines(keys, 338)
    assert server == "The server's certificate ends 2031-02-02, in 59 days. Renew it now: fedvault-server renew"
    assert node.startswith("../ward's certificate ends 2031-02-02, in 59 days. Is that node on?")
    assert lines(keys, 400)[0].startswith("The server's certificate ended 2031-02-02. Renew it")


def test_an_authority_is_announced_while_it_can_still_sign_for_a_whole_lifetime(keys: Path) -> None:
    last = 3650 - NODE_LIFETIME.days - 60
    assert not any("authority" in line for line in lines(keys, last - 1))
    (line,) = [line for line in lines(keys, last) if "authority" in line]
    remedy = "Roll it over now: fedvault-server renew --authority"
    assert line == f"The federation's authority ends 2039-12-30, in 457 days. {remedy}"


def test_an_operator_is_announced_two_weeks_before_the_last_certificate_ends() -> None:
    ends = {"anna": NOW + 13 * DAY, "ruth": NOW + 15 * DAY}
    remedy = "Another one: fedvault-server operator anna"
    assert operator_lines(ends, NOW) == [f"Operator anna's certificate ends 2030-01-14, in 13 days. {remedy}"]


def test_the_log_has_a_line_a_day_whatever_happens(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    days, stop = iter([338, 339, 340]), threading.Event()

    def ends() -> list[CertificateEnd]:
        day[0] = next(days)
        if day[0] == 339:
            raise OSError("the disk is away")
        if day[0] == 340:
            stop.set()
        return certificate_ends(keys, [])

    day = [0]
    with caplog.at_level(logging.WARNING):
        announce_daily(ends, stop, now=lambda: NOW + day[0] * DAY, pause=timedelta(0))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3 and "in 59 days" in said[0] and "could not be read" in said[1] and "in 57 days" in said[2]


def test_the_ends_are_a_metric(keys: Path, tmp_path: Path) -> None:
    async def scraped(store: Store, ends: Callable[[], Any]) -> list[str]:
        transport = httpx.ASGITransport(build_metrics_app(store, ends=ends))
        async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
            return (await client.get("/metrics")).text.splitlines()

    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        shown = asyncio.run(scraped(store, lambda: certificate_ends(keys, ["../ward"])))
    ends = [line for line in shown if line.startswith("fedvault_certificate_ends")]
    name, _, seconds = ends[0].rpartition(" ")
    assert name == 'fedvault_certificate_ends_timestamp_seconds{kind="server",node=""}'
    assert float(seconds) == (NOW + NODE_LIFETIME).timestamp()
    assert [line.partition("{")[2].partition("}")[0] for line in ends[1:]] == [
        'kind="authority",node=""',
        'kind="node",node="../ward"',
    ]
