"""Alert rules and dashboard ask for metrics and labels that there are."""

import asyncio
import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.certificate_ends import CertificateEnd
from server.gateway.metrics import build_metrics_app
from server.rounds.round import MOST_ASKS
from server.run_store.store import Store
from shared.study.declaration import Study
from tests.support.paths import ROOT
from tests.support.rounds import RECORDS

MONITORING = ROOT / "docker" / "monitoring"
RULES = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = json.loads((MONITORING / "grafana.json").read_text())["panels"]
QUESTIONS = {rule["alert"]: (rule["expr"], str(rule["annotations"])) for rule in RULES} | {
    panel["title"]: (target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]
}

SCRAPED = {"job", "instance"}
"""Labels that Prometheus gives whatever it scrapes."""
OPERATOR = re.compile(r"^(.*?) (?:[-+*/]|[=!<>]=|[<>]) (?:(on|ignoring) \(([\w, ]*)\) (?:group_left )?)?(.*)$")
EVALUATED = {
    "number": 2,
    "estimates": [{"scope": "all sites", "measure": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6}],
}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[..., Study]], dict[str, set[str]]]:
    """Labels by name of each metric that a server with a history gives."""

    def scraped(make_study: Callable[..., Study]) -> dict[str, set[str]]:
        by_name = defaultdict[str, set[str]](set)
        with Store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'runs.db'}") as store:
            run = store.create_run(make_study())
            for record in RECORDS:
                store.record_round(run.id, record.as_dict(), None)
            store.evaluations.finish(run.id, 2, EVALUATED)
            store.invite("north", "north", datetime.now(UTC) + timedelta(days=1))
            store.enrol("north", "north", 1, datetime.now(UTC))
            ends = [CertificateEnd("node", "north", datetime.now(UTC), datetime.now(UTC), "renew it")]
            transport = httpx.ASGITransport(build_metrics_app(store, lambda: {1}, lambda: ends))

            async def scrape() -> str:
                async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
                    return (await client.get("/metrics")).text

            for line in asyncio.run(scrape()).splitlines():
                if not line.startswith("#"):
                    name, _, rest = line.partition("{")
                    by_name[name.split(" ")[0]] |= set(re.findall(r'(\w+)="', rest))
        return by_name

    return scraped


def test_every_question_is_about_a_metric_and_labels_that_there_are(
    labels: Callable[..., dict[str, set[str]]], make_study: Callable[..., Study]
) -> None:
    known = labels(make_study)
    for title, (asked, legend) in QUESTIONS.items():
        names = re.findall(r"fedvault_\w+", asked)
        assert names and set(names) <= known.keys(), (title, names)
        first = known[names[0]]
        used = set(re.findall(r'(\w+)="', asked)) | set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", legend))
        assert used <= first, (title, used, first)


def labels_of(side: str, known: dict[str, set[str]]) -> set[str] | None:
    """The labels that one side of an operation leaves; None if it is one number."""
    if side.startswith("sum"):
        return set(re.findall(r"\w+", (re.match(r"sum by \(([\w, ]*)\)", side) or [""] * 2)[1]))
    return next((known[name] | SCRAPED for name in re.findall(r"fedvault_\w+", side)), None)


def matches(asked: str, known: dict[str, set[str]]) -> bool:
    """Whether the series of both sides of an operation are matched by the labels that both have."""
    operation = OPERATOR.match(asked.removeprefix("sort(").removesuffix(")") if asked.startswith("sort(") else asked)
    if operation is None:
        return True
    left, how, named, right = operation.groups()
    sides = labels_of(left, known), labels_of(right, known)
    if None in sides:
        return True
    over = set(re.findall(r"\w+", named or ""))
    matched_by = [side & over if how == "on" else side - over for side in sides if side is not None]
    return matched_by[0] == matched_by[1]


def test_both_sides_of_an_operation_have_the_labels_that_they_are_matched_by(
    labels: Callable[..., dict[str, set[str]]], make_study: Callable[..., Study]
) -> None:
    known = labels(make_study)
    assert [title for title, (asked, _) in QUESTIONS.items() if not matches(asked, known)] == []
    one, other = "increase(fedvault_asks_total[1h])", "sum(increase(fedvault_rounds_total[1h]))"
    assert matches(f"sum({one}) / {other}", known) and not matches(f"{one} / {other}", known), "job and instance"
    assert not matches(f"fedvault_runs / ignoring (state) group_left {other}", known)


def test_every_metric_is_in_the_dashboard(
    labels: Callable[..., dict[str, set[str]]], make_study: Callable[..., Study]
) -> None:
    asked = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    shown = set(re.findall(r"fedvault_\w+", asked))
    assert labels(make_study).keys() - shown == {"fedvault_nodes"}, "by status: `status` says it"


def test_only_counters_are_asked_for_their_increase() -> None:
    """A gauge that goes down is no counter that was restarted."""
    for title, (asked, _) in QUESTIONS.items():
        names = re.findall(r"(?:increase|rate)\((fedvault_\w+)", asked)
        assert all(name.endswith("_total") for name in names), (title, names)


def test_lost_rounds_are_looked_for_longer_than_silence_takes_to_lose_one(make_study: Callable[..., Study]) -> None:
    (window,) = re.findall(r"\[(\d+)d\]", QUESTIONS["FedVaultRoundsLost"][0])
    assert int(window) * 86400 > 2 * MOST_ASKS * type(make_study().federation).model_fields["deadline_s"].default


FAILED, LOST = 'fedvault_runs{state="failed"}', 'fedvault_rounds_total{outcome="lost"}'
REJECTED = 'fedvault_replies_total{verdict="rejected",reason="norm"}'
HISTORIES = {
    "the first run that fails": ("FedVaultRunFailed", {FAILED: "0x30 1x10"}, True),
    "one of two failed runs is resumed": ("FedVaultRunFailed", {FAILED: "2x30 1x10"}, False),
    "a resumed run fails again": ("FedVaultRunFailed", {FAILED: "1x20 0x10 1x10"}, True),
    "a run that failed yesterday": ("FedVaultRunFailed", {FAILED: "0x9 1x1440"}, False),
    "the first round that silence loses": ("FedVaultRoundsLost", {LOST: "0x300 1x100"}, True),
    "rounds that were lost last week": ("FedVaultRoundsLost", {LOST: "3x1500"}, False),
    "the first update that is rejected": ("FedVaultUpdatesRejected", {REJECTED: "0x30 1x10"}, True),
    "a server that has seen nothing": ("FedVaultDown", {FAILED: "0x40"}, False),
    "a server that is away": ("FedVaultDown", {FAILED: "0x10 stale _x30"}, True),
}
"""An alert, the samples of every minute, and whether it fires at the last of them."""


@pytest.mark.parametrize("history", HISTORIES)
def test_an_alert_fires_when_it_should(history: str, tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed; it runs where Debian's prometheus is (apt-get install)")
    alert, series, fires = HISTORIES[history]
    minutes = [
        sum(1 if part == "stale" else int(part.split("x")[1]) + 1 for part in text.split()) for text in series.values()
    ]
    expected = [{"labels": "{}", "value": 1}] if fires else []
    asked = {"expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})', "eval_time": f"{minutes[0] - 1}m"}
    samples = [{"series": name, "values": text} for name, text in series.items()]
    case = {"interval": "1m", "input_series": samples, "promql_expr_test": [asked | {"exp_samples": expected}]}
    rules = {"rule_files": [str(MONITORING / "alerts.yaml")], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    done = subprocess.run([tool, "test", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_folder_of_rules_is_whole() -> None:
    assert {rule["labels"]["severity"] for rule in RULES} == {"critical", "warning", "info"}
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    assert [panel["id"] for panel in PANELS] == list(range(1, len(PANELS) + 1))
    assert {path.name for path in Path(MONITORING).iterdir()} == {"alerts.yaml", "grafana.json"}
