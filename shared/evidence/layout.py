"""Lay out a whole report as blocks, from its facts alone: whatever is shown stands in them."""

from shared.evidence.audit_result import Control, sentences
from shared.evidence.evaluation_part import evaluation_part
from shared.evidence.facts import Report
from shared.evidence.figures import moment
from shared.evidence.first_page import first_page
from shared.evidence.simulation_parts import simulation_parts
from shared.evidence.texts import Texts
from shared.evidence.wording import table
from shared.pages.blocks import Block, Cell, Code, Facts, Heading, Paragraph, Row

STATED = ("requester", "contact", "legal_basis", "retention")
UNCOVERED = ("two houses", "group", "population", "machine", "floats")


def layout(report: Report) -> list[Block]:
    """Return every block of a report, in its own language."""
    texts = Texts(report.language)
    return [
        *first_page(report, texts),
        *(simulation_parts(report, texts) if report.simulation is not None else []),
        *evaluation_part(report, texts),
        *_asked(report, texts),
        *_houses(report, texts),
        *_decided(report, texts),
        *_incidents(report, texts),
        *_trust(report, texts),
        *_audit(report, texts),
        *_uncovered(report, texts),
        *_fingerprints(report, texts),
        Heading(texts("heading.verify")),
        Paragraph(texts(f"verify.{report.kind}")),
    ]


def _asked(report: Report, texts: Texts) -> list[Block]:
    study, figures = report.study, texts.figures
    rows: list[tuple[str, Cell]] = [
        (texts(f"fact.{name}"), getattr(study, name)) for name in STATED if getattr(study, name)
    ]
    if study.epsilon is not None:
        declared = texts(
            "fact.declared value", epsilon=figures.epsilon(study.epsilon), delta=figures.small(study.delta)
        )
        rows.append((texts("fact.declared"), declared))
    if report.run.began:
        rows.append((texts("fact.began"), moment(report.run.began)))
    return [Heading(texts("heading.asked")), Facts(rows)] if rows else []


def _houses(report: Report, texts: Texts) -> list[Block]:
    if not report.houses:
        return []
    figures, receipts = texts.figures, any(house.receipt_key for house in report.houses)
    header = [texts(f"table.{name}") for name in ("house", "rounds paid", "updates", "bytes", "epsilon")]
    rows = [
        Row(
            [
                house.name,
                figures.count(house.rounds),
                "-" if house.released is None else figures.count(house.released),
                "-" if house.bytes_each is None else figures.count(house.bytes_each),
                figures.epsilon(house.epsilon),
                *(
                    [_receipt(house.receipt_epsilon, house.receipt_rounds, house.receipt_key, texts)]
                    if receipts
                    else []
                ),
            ]
        )
        for house in report.houses
    ]
    blocks = [
        Heading(texts("heading.left")),
        *table([*header, *([texts("table.receipt")] if receipts else [])], rows, texts),
    ]
    if report.kind == "server":
        blocks.append(Paragraph(texts("server's count"), "small"))
    releases = [release for house in report.houses for release in house.releases]
    if releases:
        digests = [Row([figures.count(one.round), Code(one.sha256[:32])]) for one in releases]
        blocks += [
            Heading(texts("heading.releases")),
            *table([texts("table.round"), texts("table.digest")], digests, texts),
        ]
    return blocks


def _receipt(epsilon: float | None, rounds: int | None, key: str, texts: Texts) -> str:
    if epsilon is None or rounds is None:
        return "-"
    figures = texts.figures
    return texts("table.receipt value", epsilon=figures.epsilon(epsilon), rounds=figures.count(rounds), key=key[:16])


def _decided(report: Report, texts: Texts) -> list[Block]:
    header = [texts(f"table.{name}") for name in ("when", "answer", "by", "note")]
    rows = [
        Row([moment(one.time), texts(f"answer.{one.answer}"), one.by or texts("nobody named"), one.note])
        for one in report.decisions
    ]
    blocks = table(header, rows, texts)
    if (policy := report.policy) is not None:
        figures = texts.figures
        limit = texts(
            "fact.limit value",
            epsilon=figures.epsilon(policy.epsilon),
            delta=figures.small(policy.delta),
            unit=policy.unit,
        )
        facts: list[tuple[str, Cell]] = [(texts("fact.limit"), limit)]
        if policy.approval:
            facts.append((texts("fact.approval"), texts(f"fact.approval {policy.approval}")))
        if policy.smallest_cohort is not None:
            facts.append((texts("fact.cohort"), figures.count(policy.smallest_cohort)))
        blocks.append(Facts(facts))
    return [Heading(texts("heading.decided")), *blocks] if blocks else []


def _incidents(report: Report, texts: Texts) -> list[Block]:
    named = any(one.who for one in report.incidents)
    rows = [
        Row(
            [
                texts.figures.count(one.round),
                texts(f"incident.{one.what}"),
                *([one.who] if named else []),
                one.why.replace("_", " "),
            ]
        )
        for one in report.incidents
    ]
    header = ["round", "what", *(["who"] if named else []), "why"]
    blocks = table([texts(f"table.{name}") for name in header], rows, texts)
    return [Heading(texts("heading.rounds")), *blocks] if blocks else []


def _trust(report: Report, texts: Texts) -> list[Block]:
    trust = report.trust
    if trust is None:
        return []
    epsilon = texts.figures.epsilon(trust.epsilon_if_all_collude)
    sentence = texts(f"trust.{trust.noise}", epsilon=epsilon, unit=report.study.unit)
    return [Heading(texts("heading.trust")), Paragraph(sentence)]


def _audit(report: Report, texts: Texts) -> list[Block]:
    audit, figures = report.further.audit, texts.figures
    if audit is None:
        return []
    blocks: list[Block] = [Heading(texts("heading.audit")), Paragraph(" ".join(sentences(audit)))]
    if (planted := audit.canaries) is not None:
        counted = texts(
            "audit.canaries",
            guesses=figures.count(planted.guesses),
            correct=figures.count(planted.correct),
            rate=figures.small(planted.sampling_rate),
            steps=figures.count(planted.steps),
            delta=figures.small(planted.delta),
            weaker=figures.value(planted.epsilon_at_least_any),
            size=figures.value(planted.epsilon_by_size),
        )
        controls = [_control(one, texts) for one in planted.controls]
        blocks.append(Paragraph(" ".join([counted, *controls]), "small"))
    if (attack := audit.membership) is not None:
        blocks.append(
            Paragraph(texts("audit.membership", units=figures.count(attack.units), unit=attack.unit), "small")
        )
    return blocks


def _control(control: Control, texts: Texts) -> str:
    figures, showed = texts.figures, control.epsilon_at_least
    return texts(
        "audit.control",
        fault=control.fault,
        rate=figures.small(control.sampling_rate),
        steps=figures.count(control.steps),
        epsilon=texts("audit.not tried") if showed is None else texts("audit.tried", epsilon=figures.value(showed)),
        ideal=figures.value(control.epsilon_if_ideal),
    )


def _uncovered(report: Report, texts: Texts) -> list[Block]:
    sentences = " ".join(texts(f"uncovered.{key}", unit=report.study.unit) for key in UNCOVERED)
    return [Heading(texts("heading.uncovered")), Paragraph(sentences)]


def _fingerprints(report: Report, texts: Texts) -> list[Block]:
    figures, study = texts.figures, report.study
    rows: list[tuple[str, Cell]] = [(texts("fact.study"), Code(study.sha256))]
    if study.base_model_fingerprint:
        rows.append((texts("fact.base model", name=study.base_model), Code(study.base_model_fingerprint)))
    for one in report.further.plugins:
        rows.append((texts(f"fact.plug-in {one.kind}"), Code(f"{one.name}, {one.package} {one.version}, {one.sha256}")))
    if report.adapter_sha256:
        rows.append((texts("fact.adapter"), Code(report.adapter_sha256)))
    if (noise := report.mechanism) is not None:
        sigma, rate = figures.small(noise.noise_multiplier), figures.small(noise.sampling_rate)
        rows.append(
            (texts("fact.noise"), texts("fact.noise value", sigma=sigma, rate=rate, steps=figures.count(noise.steps)))
        )
    if report.server_rounds is not None:
        rows.append((texts("fact.server rounds"), figures.count(report.server_rounds)))
    if (ledger := report.ledger) is not None:
        rows.append(
            (
                texts("fact.ledger"),
                Code(texts("fact.ledger value", height=figures.count(ledger.height), head=ledger.head)),
            )
        )
    made = texts(
        "fact.made by value", version=report.fedvault, format=str(report.fedvault_report), renderer=report.renderer
    )
    return [Heading(texts("heading.fingerprints")), Facts([*rows, (texts("fact.made by"), made)])]
