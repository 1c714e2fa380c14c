"""`result.json`: every figure of a run, with the meaning and unit of each field.

`python -m simulations.results.result` prints the page about it.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field, PlainSerializer, ValidationError

from shared.errors import SettingsError
from shared.evidence.audit_result import AuditResult, CanaryAudit, Control, Hits, MembershipAttack
from shared.evidence.facts import PluginUse
from shared.files import write_atomically
from shared.private_evaluation.choice import Choice
from shared.private_evaluation.estimates import Estimate, Evaluated, OneSum
from shared.section import Section


def _json_safe(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


# perplexity overflows and a diverged loss is not a number; checkpoints dump plain Python values and allow neither, so
# the words are written in every mode of dumping, and validation reads them back
Measured = Annotated[float, PlainSerializer(_json_safe)]


class WorstSite(Section):
    """The site with the worst main metric."""

    site: str
    """Its name."""
    value: Measured
    """Its main metric on held-out records; "inf" or "nan" where that is not finite."""


class Quality(Section):
    """The quality of predictions on held-out records."""

    metric: str
    """Name of the task's main metric, such as accuracy."""
    higher_is_better: bool
    """Its direction; false for errors, perplexity and the like."""
    value: Measured
    """The main metric over all held-out records of all sites; "inf" or "nan" where that is not finite."""
    metrics: dict[str, Measured]
    """Every metric of the task by name, over all held-out records of all sites."""
    per_site: dict[str, Measured]
    """The main metric by site."""
    worst_site: WorstSite
    """The site with the worst main metric."""
    metrics_by_site: dict[str, dict[str, Measured]] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Every metric of the task by site and name; of the arms' last adapters alone. Left out of older results."""


class Drawn(Section):
    """A figure as a fraction, with its interval."""

    value: Measured
    """As a fraction."""
    low: Measured
    """Lower end of its 95 % interval, by a bootstrap over units."""
    high: Measured
    """Upper end."""


class Effect(Drawn):
    """A figure of an arm less that of the arm `without-privacy`, over the same units, drawn together."""


class Subgroup(Section):
    """How good an arm is for the held-out records of one subgroup."""

    records: int
    """Held-out records."""
    units: int
    """Units that they belong to."""
    rates: dict[str, Measured]
    """Accuracy; with two labels also selection rate, true-positive and false-positive rate, of the second label."""
    effects: dict[str, Effect] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """What privacy did to each rate of a subgroup of at least 30 units; left out of arms with nothing to compare."""


class Gap(Drawn):
    """The largest rate of a subgroup minus the smallest, among subgroups of at least 30 held-out units."""

    by_chance: Measured
    """The gap that groups of these sizes show half of the time if all are treated alike."""
    effect: Effect | None = Field(default=None, exclude_if=lambda value: value is None)
    """What privacy did to it; left out of arms with nothing to compare."""


class Fairness(Section):
    """An arm's figures by the subgroups of one column."""

    subgroups: dict[str, Subgroup]
    """By value of the column."""
    gaps: dict[str, Gap]
    """By rate; empty where fewer than two subgroups are large enough."""


class ArmResult(Section):
    """The result of one arm."""

    title: str
    """What it is, in words."""
    private: bool
    """Whether it is protected. An arm that touches no training record counts as protected; the majority class, which
    counts training labels without noise, does not."""
    epsilon: float | None
    """Total cost to one unit (a record, by default); null where none is spent or nothing is protected."""
    epsilon_if_all_collude: float | None = Field(default=None, exclude_if=lambda value: value is None)
    """The same if all other sites pooled what they know, where sites share one noise; otherwise left out."""
    rows: int
    """Training records."""
    units: int | None = None
    """Units that they belong to; as many as records, unless privacy.unit says otherwise. Null in older results."""
    sampling_rate: float | None
    """q; null without training."""
    steps: int
    """Steps per site."""
    seconds: float
    """Wall time of training and evaluation."""
    quality: Quality
    """On held-out records."""
    fairness: dict[str, Fairness] = Field(default_factory=dict)
    """By column of simulation.data.subgroups."""
    curve: dict[int, Quality] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """By round, with simulation.curves = "all"; the study's own arm has its under `rounds`."""
    note: str = ""
    """How its figures must be read, as the rest of a sentence that begins with its title; mostly empty."""


class Difference(Section):
    """The study's own arm minus another, on the main metric over the same held-out records.

    The interval covers what other held-out records of the same sites would have shown, and nothing else: not other
    seeds, whose noise and batches differ, nor other splits.
    """

    value: Measured
    """In the metric's own units (an accuracy's hundredths are points); positive where `federated` is better."""
    low: Measured
    """Lower end of its 95 % interval, by a paired bootstrap over units; "nan" where a metric is not finite."""
    high: Measured
    """Upper end."""
    unit: str
    """What is drawn as one: record, the study's unit of privacy, or the column of rows that are held out together."""
    units: int
    """Number of them among the held-out records."""


class RoundResult(Section):
    """The result of one round of the study's own arm."""

    round: int
    """From 1."""
    outcome: str
    """aggregated, or lost below the quorum (skipped, in older results)."""
    seconds: float
    """Wall time, evaluation included."""
    accepted: int
    """Updates aggregated."""
    rejected: list[dict[str, str]] = Field(validation_alias=AliasChoices("rejected", "quarantined"))
    """Replies that were rejected: {site, reason}."""
    refused: list[dict[str, str]]
    """Replies without an update: {site, status}."""
    missing: list[str]
    """Sites silent to the end."""
    evaluation: Quality | None
    """After the round; null where it was not evaluated."""
    update_norms: dict[str, Measured] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Length of each site's update as it was sent, with simulation.update_norms: most of it is noise."""


class SitePrivacy(Section):
    """The privacy that one site has spent."""

    epsilon_rdp: float
    """By Renyi accounting: the gate."""
    epsilon_prv: float | None
    """By privacy random variables; tighter; null where its numerics give up."""
    delta: float
    """At this delta."""
    noise_multiplier: float
    """Sigma."""
    sampling_rate: float
    """q."""
    steps: int
    """Noisy steps released."""
    unit: str
    """Whose presence is hidden."""
    adjacency: str
    """Which two datasets are neighbours."""
    sampling: str
    """How batches are drawn."""
    accountant: str
    """Which figure is the guarantee."""
    clipping: str
    """How gradients are bounded."""
    clip_norm: float
    """At which length."""
    declared_size: int
    """Public size of the site, in units."""
    seeded_noise: bool
    """True in every simulation: repeatable, therefore not private."""


class SiteData(Section):
    """The numbers of a site's rows by use."""

    rows: int
    """All rows."""
    train: int
    """Trained on."""
    units: int | None = None
    """Units that these belong to; as many as records, unless privacy.unit says otherwise. Null in older results."""
    holdout: int
    """Never trained on."""
    evaluated: int | None = None
    """Those of them that metrics count: with a known label and something to read. Null in older results."""
    dropped: int
    """Not used at all."""
    unusable: int
    """Training records without a known label or text; they contribute nothing."""


class PoisonedSite(Section):
    """What the server made of a site that was poisoned on purpose."""

    poison: str
    """flipped-labels, scaled-update, or noise-free-update: then its ε under `privacy` does not hold."""
    accepted: int
    """Rounds in which its update went into the adapter."""
    rejected: dict[str, int]
    """Rounds in which it was rejected, by reason."""
    quiet: int = 0
    """Rounds in which the server named its update as quieter than the noise that the site declares."""


class ServerCrash(Section):
    """The server of the study's own arm was cut off on purpose."""

    round: int
    """In the middle of which."""
    continued_after: int
    """Round of the checkpoint that it went on from."""


class TroubleResult(Section):
    """What came of `[simulation.trouble]`."""

    dropped_out: dict[str, list[int]]
    """Rounds whose answer never came, by site; each is paid for."""
    too_late: dict[str, list[int]]
    """Rounds whose answer came after the deadline, by site; likewise."""
    waited_s: float
    """Seconds that rounds would have waited for slow sites within the deadline. No time passed."""
    rounds_lost: int
    """Rounds below the quorum."""
    poisoned: dict[str, PoisonedSite]
    """By site."""
    server_crash: ServerCrash | None
    """Null where the server was not cut off."""


class Bytes(Section):
    """The sizes of messages, in bytes."""

    up_per_node_round: int
    """One reply."""
    down_per_node_round: int
    """One task."""
    up_by_wire: dict[str, int] = Field(default_factory=dict)
    """One update of this adapter by the encoding that the study could choose; federation.wire says which it was."""
    full_lora_up: int | None
    """What sending A and B of every layer would take; null if the model or the adapter rules that out."""
    full_model_up: int
    """What sending the whole model would take."""


class Result(Section):
    """The whole result of a run."""

    schema_version: Literal[2] = 2
    """Raised when a field changes its meaning."""
    fedvault_version: str
    """Version that wrote it."""
    study_sha256: str
    """Identity of the study."""
    scenario: dict[str, Any]
    """The scenario as run, defaults filled in."""
    rounds: list[RoundResult]
    """The study's own arm, round by round."""
    evaluated_on: Literal["held-out", "validation"] = "held-out"
    """Whether metrics are over the held-out records, as fields here say, or over validation records instead: a share of
    the training records, for choosing settings."""
    final: Quality
    """Of the final adapter."""
    arms: dict[str, ArmResult]
    """Every arm by name, the study's own under `federated`."""
    baselines: dict[str, ArmResult]
    """The arms without `federated`."""
    differences: dict[str, Difference] = Field(default_factory=dict)
    """`federated` minus each other arm, by the other's name. Empty in older results."""
    privacy: dict[str, SitePrivacy]
    """By site, for the study's own arm."""
    bytes: Bytes
    """Of the study's own arm."""
    timing: dict[str, float]
    """Seconds by phase of the whole run."""
    data: dict[str, SiteData]
    """By site."""
    trouble: TroubleResult | None = Field(default=None, exclude_if=lambda value: value is None)
    """What came of faults and attacks on purpose; left out where there were none."""
    audit: AuditResult | None = None
    """What attacks on training showed, beside what it promises; null without the arm `audit`."""
    evaluations: list[Evaluated] = Field(default_factory=list, exclude_if=lambda value: not value)
    """What a study with `[evaluation]` would have released, in order; left out without one."""
    choice: Choice | None = Field(default=None, exclude_if=lambda value: value is None)
    """Which of these is best, and whether they ended the run; left out where the study does not compare them."""
    plugins: tuple[PluginUse, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Code of other packages that took part; left out where there was none."""
    warnings: list[str]
    """What the operator should know."""


def evaluated_adapter(result: Result) -> Evaluated | None:
    """Return the private evaluation of the adapter that a run hands out; None if there is none."""
    answered = [one for one in result.evaluations if one.estimates]
    number = None if result.choice is None else result.choice.handed_out(len(result.rounds))
    return next((one for one in answered if one.number == number), answered[-1] if answered else None)


def write_result(path: Path, result: Result) -> None:
    """Write a result as a whole or not at all."""
    write_atomically(path, (result.model_dump_json(indent=1) + "\n").encode())


def read_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        SettingsError: not there, not JSON, or of another shape.
    """
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError:
        raise SettingsError(f"Expected {path}, got nothing.", hint="Has the run finished? --resume goes on.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(
            f"Expected a result file, got {path}: {where} {first['msg']}.",
            hint="If another version of FedVault wrote it, read it with that version or run the scenario again.",
        ) from None


def as_json(result: Result) -> str:
    """Return the result as `--json` prints it."""
    return json.dumps(result.model_dump(mode="json"), indent=1)


def schema_markdown() -> str:
    """Return the fields of every part, and the columns of every table, as Markdown."""
    from simulations.results.frames import tables_markdown  # which reads the parts below

    parts: list[type[BaseModel]] = [
        Result, RoundResult, ArmResult, Quality, WorstSite, Difference, SitePrivacy, SiteData, Bytes, TroubleResult,
        PoisonedSite, ServerCrash, AuditResult, CanaryAudit, Control, MembershipAttack, Hits,
        Fairness, Subgroup, Gap, Effect, Evaluated, OneSum, Estimate, Choice, PluginUse,
    ]  # fmt: skip
    fields = "\n".join([*map(_table, parts), tables_markdown()])
    return f"# result.json\n\nGenerated by `python -m simulations.results.result`.\n\n{fields}"


def _table(part: type[BaseModel]) -> str:
    rows = [f"| `{name}` | {_kind(part, name)} | {field.description} |" for name, field in part.model_fields.items()]
    return "\n".join([f"## {part.__name__}", "", "| field | type | meaning |", "|---|---|---|", *rows, ""])


def _kind(part: type[BaseModel], name: str) -> str:
    schema = part.model_json_schema()["properties"][name]
    kind = schema.get("$ref", "").rsplit("/", 1)[-1] or schema.get("type")
    if kind:
        return str(kind)
    return " or ".join(str(s.get("$ref", "").rsplit("/", 1)[-1] or s.get("type")) for s in schema["anyOf"])


if __name__ == "__main__":
    print(schema_markdown(), end="")  # noqa: T201 - this is the command's output
