"""Reports with every part that they can have, and who signs them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.link.membership import _made_key, _request
from server.certificate_authority import create, issue_node, issue_server
from shared.evidence.audit_result import AuditResult, CanaryAudit, Control, Hits, MembershipAttack
from shared.evidence.facts import (
    Answer,
    Arm,
    Budget,
    Decided,
    Further,
    House,
    Incident,
    Interval,
    Left,
    Mechanism,
    Point,
    Policy,
    Position,
    Release,
    Report,
    RunFacts,
    SimulationFacts,
    SiteFacts,
    Size,
    StudyFacts,
    SubgroupFacts,
    Trust,
    meaning,
)
from shared.evidence.signed_report import SignedReport, renderer, sign
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian
from shared.private_evaluation.choice import Choice
from shared.private_evaluation.estimates import Estimate, Evaluated

HOSTILE = '<script>alert(1)</script>&"\'\\ #eval("1") [/red] \u202e {x}'
STUDY = StudyFacts(
    name="reports of a ward",
    sha256="a" * 64,
    purpose="To find reports that a person should read first.",
    requester="St Mary",
    contact="dpo@example.org",
    legal_basis="Art. 9(2)(j) GDPR",
    retention="five years, by St Mary",
    base_model="bundled:minilm",
    base_model_fingerprint="b" * 64,
    unit="patient",
    epsilon=3.25,
    delta=1e-5,
)
NOISE = Mechanism(noise_multiplier=1.5, sampling_rate=0.05, steps=18)

AUDIT = AuditResult(
    fedvault_version="0.1.0",
    date="2026-11-20",
    study_sha256="a" * 64,
    canaries=CanaryAudit(
        epsilon_stated=3.0,
        delta=1e-5,
        unit="patient",
        sampling_rate=0.1,
        steps=48,
        canaries=5000,
        guesses=500,
        correct=350,
        epsilon_at_least=0.9,
        epsilon_at_least_any=0.7,
        epsilon_if_ideal=1.0,
        controls=(
            Control(
                fault="a third of the noise",
                sampling_rate=0.1,
                steps=48,
                epsilon_if_ideal=3.8,
                must_be_caught=True,
                epsilon_at_least=3.7,
                caught=True,
            ),
        ),
    ),
    membership=MembershipAttack(
        site="clinic",
        unit="patient",
        units=400,
        adapters=9,
        private=Hits(rate=0.011, low=0.008, high=0.015),
        without_privacy=Hits(rate=0.25, low=0.22, high=0.28),
        most=0.2,
    ),
)


CHOICE = Choice(
    measure="accuracy",
    compared=(4, 6, 8, 9),
    of=5,
    sites=("north", "south"),
    best=8,
    value=0.743,
    low=0.631,
    high=0.842,
    low_here=0.662,
    high_here=0.817,
    clear=False,
    hands_out=True,
    without_improvement=1,
    stop_after=3,
)
EVALUATED = Evaluated(
    number=8,
    epsilon=1.1,
    sigma=3.73,
    sites=("north", "south"),
    without={"east": "refused_budget"},
    estimates=(
        Estimate(
            scope="all sites", measure="units", value=412.4, low=380.0, high=444.0, low_here=381.0, high_here=443.0
        ),
        Estimate(
            scope="worst site",
            name="south",
            measure="accuracy",
            value=0.71,
            low=0.6,
            high=0.8,
            low_here=0.65,
            high_here=0.77,
        ),
        Estimate(
            scope="gap",
            measure="true-positive rate",
            label="yes",
            value=0.11,
            low=0.01,
            high=0.2,
            low_here=0.05,
            high_here=0.16,
        ),
        Estimate(scope="subgroup", name="other", measure="accuracy"),
    ),
)


SUBGROUPS = (
    SubgroupFacts(
        column="sex", name="women", units=318, quality=0.766, effect=Interval(value=-0.024, low=-0.051, high=0.007)
    ),
    SubgroupFacts(column="sex", name="men", units=733, quality=0.789, effect=Interval(value=-0.016)),
    SubgroupFacts(column="age", name="above 80", units=39, quality=0.641),
)


def node_report(**changes: Any) -> Report:
    """A node's report of a run that ended early."""
    release = SubsampledGaussian(NOISE.noise_multiplier, NOISE.sampling_rate, NOISE.steps)
    spent = epsilon_rdp([release], STUDY.delta)
    released = (Release(round=1, sha256="c" * 64), Release(round=3, sha256="d" * 64))
    usual: dict[str, Any] = {
        "kind": "node",
        "language": "en",
        "fedvault": "0.1.0",
        "renderer": renderer(),
        "issued": datetime.now(UTC).isoformat(timespec="seconds"),
        "issuer": "st-mary",
        "study": STUDY,
        "run": RunFacts(name="r-1", state="ended early", rounds=8, rounds_done=3, began="2026-11-27T08:00:00+00:00"),
        "left": Left(updates=2, bytes=4096),
        "houses": (House(name="st-mary", rounds=3, released=2, bytes_each=2048, epsilon=spent, releases=released),),
        "budget": Budget(before=0.5, run=0.75, earmarked=0.25, left=1.5, limit=3.0, delta=1e-5),
        "meaning": meaning(spent),
        "mechanism": NOISE,
        "trust": Trust(noise="own", epsilon_if_all_collude=spent),
        "decisions": (Decided(answer="yes", time="2026-11-27T08:00:00+00:00", by="Dr. Who", note="ethics vote 7"),),
        "policy": Policy(epsilon=3.0, delta=1e-5, unit="patient", approval="ask", smallest_cohort=4),
        "incidents": (Incident(round=2, what="lost"),),
        "server_rounds": 3,
        "ledger": Position(height=17, head="e" * 64),
        "further": Further(audit=AUDIT),
    }
    return Report(**{**usual, **changes})


def server_report(**changes: Any) -> Report:
    """A server's report of a finished run, with one node's receipt."""
    houses = (
        House(
            name="north",
            rounds=8,
            released=7,
            bytes_each=2048,
            epsilon=2.9,
            receipt_epsilon=2.8,
            receipt_rounds=7,
            receipt_key="f" * 64,
        ),
        House(name="south", rounds=6, released=6, bytes_each=2048, epsilon=2.4),
    )
    answer = Answer(
        metric="accuracy",
        higher_is_better=True,
        quality=Interval(value=0.8, low=0.75, high=0.84),
        counted=400,
        measured_on="server",
        in_points=True,
    )
    refused = Incident(round=4, what="refused", who="south", why="over_budget")
    usual: dict[str, Any] = {
        "kind": "server",
        "issuer": "server.example.org",
        "run": RunFacts(name="r-1", state="finished", rounds=8, rounds_done=8),
        "answer": answer,
        "left": Left(houses=2, updates=13, bytes=26624),
        "houses": houses,
        "budget": None,
        "meaning": meaning(2.9),
        "decisions": (),
        "policy": None,
        "incidents": (refused,),
        "adapter_sha256": "9" * 64,
        "server_rounds": None,
        "ledger": None,
        "further": Further(evaluation=EVALUATED, choice=CHOICE),
    }
    return node_report(**{**usual, **changes})


def simulation_report(**changes: Any) -> Report:
    """A simulation's report of one seed."""

    def arm(title: str, value: float, **others: Any) -> Arm:
        kept = {
            "ours": False,
            "private": True,
            "epsilon": 2.9,
            "rows": 100,
            "steps": 24,
            "epsilon_if_all_collude": 9.5,
        } | others
        quality = Interval(value=value, low=value - 0.02, high=value + 0.02)
        return Arm(title=title, quality=quality, worst_site="south", worst=value - 0.1, **kept)

    minus = Interval(value=-0.012, low=-0.03, high=0.004)
    facts = SimulationFacts(
        arms=(
            arm("federated", 0.8, ours=True),
            arm("WITHOUT PRIVACY", 0.812, private=False, epsilon=None, epsilon_if_all_collude=None, minus=minus),
        ),
        sites=(SiteFacts(name="north", train=100, evaluated=12, quality=0.83, epsilon=2.9),),
        curve=(Point(round=1, value=0.6, worst=0.5), Point(round=2, value=0.8, worst=0.7)),
        sizes=(Size(way="this adapter, float32", bytes=1234567),),
        minutes=3.5,
        differ_over="records",
        drawn_units=234,
        notes=("a note",),
    )
    answer = Answer(
        metric="accuracy",
        higher_is_better=True,
        quality=Interval(value=0.8),
        counted=234,
        measured_on="held-out",
        in_points=True,
        privacy_cost=Interval(value=0.012, low=-0.004, high=0.03),
    )
    usual: dict[str, Any] = {
        "kind": "simulation",
        "issuer": "",
        "run": RunFacts(name="", state="finished", rounds=2, rounds_done=2),
        "answer": answer,
        "houses": (),
        "simulation": facts,
        "trust": None,
        "further": Further(evaluation=EVALUATED, subgroups=SUBGROUPS),
    }
    return server_report(**{**usual, "adapter_sha256": "", "incidents": (), **changes})


class Federation:
    """An authority, and the keys that it certified."""

    def __init__(self, folder: Path) -> None:
        created = create(folder / "authority", "a federation")
        self.authority = created.certificate.read_bytes()
        self.node_key = _made_key(folder / "node.key")
        request = _request(self.node_key, "st-mary").encode()
        self.node_certificate = issue_node(folder / "authority", "st-mary", request).decode()
        self.server = issue_server(folder / "authority", ["server.example.org"])

    def signed(self, report: Report) -> SignedReport:
        """The report under the node's signature."""
        return sign(report, self.node_key, self.node_certificate)
