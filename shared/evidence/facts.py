"""The facts of a report: every number that its pages show. A part without numbers is absent, on every page too.

Parts that other work adds (a private evaluation, fairness, an explanation) stand in `Further`, each an optional field
of its own with its words in the catalogue of texts; nothing else of the report knows them.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer

from shared.evidence.audit_result import AuditResult
from shared.private_evaluation.choice import Choice
from shared.private_evaluation.estimates import Evaluated
from shared.section import Section

VERSION = 1
"""Raised when a field changes its meaning; every older version stays readable."""
TELLING = 30.0
"""Beyond this epsilon, neither a factor nor a guess tells anything."""


def _json_safe(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


Measured = Annotated[float, PlainSerializer(_json_safe)]
"""A measured figure; "inf" or "nan" where it is not finite."""
Language = Literal["en", "de"]


class StudyFacts(Section):
    """A study as it was declared, with who asked and why; a part that it did not state is empty."""

    name: str
    sha256: str
    purpose: str = ""
    requester: str = ""
    contact: str = ""
    legal_basis: str = ""
    retention: str = ""
    base_model: str = ""
    base_model_fingerprint: str = ""
    unit: str
    """Whose presence is hidden."""
    epsilon: float | None = None
    """Declared for the whole study; None where the study's file is gone."""
    delta: float


class RunFacts(Section):
    """How far a run came."""

    name: str
    state: Literal["open", "finished", "ended early", "withdrawn", "failed", "stopped"]
    """`ended early` is closed before its last round, `withdrawn` is of records that were withdrawn."""
    reason: str = ""
    """Why it failed, in the server's words."""
    rounds: int
    """Declared."""
    rounds_done: int
    """A node's: paid for. A server's or a simulation's: finished."""
    began: str = ""
    """When it was queued or approved."""


class Interval(Section):
    """A figure with the ends of its 95 % interval, if it has one."""

    value: Measured
    low: Measured | None = None
    high: Measured | None = None


class Answer(Section):
    """How good the result is, and what privacy cost."""

    metric: str
    """In words, such as `macro F1`."""
    higher_is_better: bool
    quality: Interval
    counted: int | None = None
    """Records that it was measured on."""
    measured_on: Literal["held-out", "validation", "server", "counts"]
    """Of the sites: held out, or for choosing settings; the server's own table; or noisy counts of held-out units."""
    in_points: bool
    """Whether differences are hundredths of a share."""
    privacy_cost: Interval | None = None
    """Of the same training without privacy, less this; positive where privacy costs something."""
    over_seeds: int = Field(default=1, ge=1)
    """Runs that differ in their seed alone; with more than one, figures are means and intervals are over seeds."""


class Left(Section):
    """All that left all organisations together."""

    houses: int | None = None
    """None in a node's report, which is of one."""
    updates: int
    bytes: int | None = None
    """None where nobody knows how long one was."""


class Release(Section):
    """One round's update as it left a node."""

    round: int
    sha256: str


class House(Section):
    """All that left one organisation, and its cost to the records there."""

    name: str
    rounds: int
    """Paid for, also if the update was lost."""
    released: int | None = None
    """Updates that left."""
    bytes_each: int | None = None
    """Length of an update, which is the same in every round; None where no copy of one is left."""
    epsilon: float
    releases: tuple[Release, ...] = ()
    receipt_epsilon: float | None = None
    """What the node's own signed receipt says; None if the server was given none."""
    receipt_rounds: int | None = None
    receipt_key: str = ""
    """Fingerprint of the key that signed it."""


class Budget(Section):
    """A dataset's account at a node, in epsilon at `delta`."""

    before: float
    """Spent by all other runs."""
    run: float
    """What this run adds to it; less than its own epsilon, since rounds cost less together."""
    earmarked: float
    left: float
    limit: float
    delta: float


class Meaning(Section):
    """An epsilon as somebody who decides can read it."""

    epsilon: float
    """Of the whole run, or of the house that spent most."""
    at_most_times: float | None
    """e^epsilon: how many times as likely an output can become because one unit took part; None where it is absurd."""
    best_guess_percent: float | None
    """How often whoever would toss a coin guesses right at best."""


class Mechanism(Section):
    """The noise, from which epsilon follows."""

    noise_multiplier: float
    sampling_rate: float
    steps: int


class Trust(Section):
    """Whose noise protects a house, and what is left of it in the worst case."""

    noise: Literal["own", "shared"]
    epsilon_if_all_collude: float
    """If the server and every other node work together."""


class Decided(Section):
    """One answer of a node's operator."""

    answer: Literal["yes", "no"]
    time: str
    by: str = ""
    note: str = ""


class Policy(Section):
    """The limits that the node's operator had fixed for these records."""

    epsilon: float
    delta: float
    unit: str
    approval: str = ""
    """Today's; empty if node.toml no longer names the dataset."""
    smallest_cohort: int | None = None


class Incident(Section):
    """A round that did not go as asked."""

    round: int
    what: str
    """A key of the catalogue under `incident`, such as lost, failed, refused, rejected, missing."""
    who: str = ""
    why: str = ""


class Point(Section):
    """The main metric after one round."""

    round: int
    value: Measured
    worst: Measured


class Arm(Section):
    """One arm of a simulation."""

    title: str
    ours: bool
    private: bool
    epsilon: float | None
    epsilon_if_all_collude: float | None = None
    """Where sites share one noise: what is left if all others pool what they know."""
    rows: int
    steps: int
    quality: Interval
    worst_site: str
    worst: Measured
    minus: Interval | None = None
    """The study's own arm less this one; positive where the study's is better."""
    curve: tuple[Point, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Round by round, where the run evaluated it so; the study's own is under `SimulationFacts.curve`."""


class SiteFacts(Section):
    """One simulated site."""

    name: str
    train: int
    evaluated: int | None
    quality: Measured
    epsilon: float


class Size(Section):
    """What one way of sending would take, per node and round."""

    way: str
    bytes: int


class SimulationFacts(Section):
    """What only a simulation knows: every arm, every site, every round."""

    arms: tuple[Arm, ...]
    sites: tuple[SiteFacts, ...]
    curve: tuple[Point, ...] = ()
    sizes: tuple[Size, ...] = ()
    minutes: float
    """Of the whole run, all phases."""
    differ_over: Literal["records", "seeds"]
    """What intervals of differences cover."""
    seeds_of: tuple[Literal["noise", "batches", "split", "holdout"], ...] = Field(
        default=(), exclude_if=lambda value: not value
    )
    """What was drawn from seeds that differ, over several of them; left out where all four were."""
    drawn_unit: str = "record"
    drawn_units: int = 0
    notes: tuple[str, ...] = ()


class PluginUse(Section):
    """A plug-in that took part: code of a package that was installed beside FedVault."""

    kind: Literal["aggregation", "partitioner"]
    """What it did: combine updates, or deal rows out to sites."""
    name: str
    """As the study or scenario says."""
    package: str
    """That offers it."""
    version: str
    """Of the package."""
    sha256: str
    """Of its code as it was installed."""

    @property
    def in_words(self) -> str:
        """Return it in one line, as cards say it."""
        return f"`{self.name}` ({self.kind}) of the package {self.package} {self.version}, code SHA-256 `{self.sha256}`"


class SubgroupFacts(Section):
    """How good a simulation's result is for one subgroup of the held-out units, and what privacy did to that."""

    column: str
    name: str
    units: int
    quality: Measured
    """Accuracy."""
    effect: Interval | None = None
    """Accuracy less that of the same training without privacy, on the same units; None where there is none."""


class Further(Section):
    """Parts that exist only if somebody measured them, or that others brought."""

    audit: AuditResult | None = None
    # left out while it is not there: reports without one stay readable to versions that do not know it
    evaluation: Evaluated | None = Field(default=None, exclude_if=lambda value: value is None)
    """That of the adapter which is handed out: the last one of the run that some site answered, or the one chosen."""
    choice: Choice | None = Field(default=None, exclude_if=lambda value: value is None)
    """Among the run's evaluations, where its study declares one."""
    plugins: tuple[PluginUse, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Code beside FedVault's that took part; more than one version of it where the run went on with another."""
    subgroups: tuple[SubgroupFacts, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Of a simulation: those with enough units to tell anything."""


class Position(Section):
    """Where a node's ledger stood."""

    height: int
    head: str


class Report(Section):
    """A whole report."""

    fedvault_report: Literal[1] = 1
    """Version of this format."""
    kind: Literal["node", "server", "simulation"]
    language: Language
    fedvault: str
    """Version that made it."""
    renderer: str
    """Digest of what writes its pages: another one may lay out the same facts differently."""
    issued: str
    issuer: str = ""
    """What the federation calls who made it."""
    study: StudyFacts
    run: RunFacts
    answer: Answer | None = None
    left: Left | None = None
    houses: tuple[House, ...] = ()
    budget: Budget | None = None
    meaning: Meaning
    mechanism: Mechanism | None = None
    trust: Trust | None = None
    decisions: tuple[Decided, ...] = ()
    policy: Policy | None = None
    incidents: tuple[Incident, ...] = ()
    adapter_sha256: str = ""
    server_rounds: int | None = None
    """Rounds that the server's own signed report counts for this node."""
    ledger: Position | None = None
    simulation: SimulationFacts | None = None
    further: Further = Further()


def meaning(epsilon: float) -> Meaning:
    """Return what an epsilon means in figures, delta aside."""
    if epsilon >= TELLING:
        return Meaning(epsilon=epsilon, at_most_times=None, best_guess_percent=None)
    return Meaning(epsilon=epsilon, at_most_times=math.exp(epsilon), best_guess_percent=100 / (1 + math.exp(-epsilon)))
