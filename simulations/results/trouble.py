"""Say what came of faults and attacks on purpose, from the records of the study's own arm. Pure, no IO."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from simulations.experiment.trouble import Trouble
from simulations.results.result import PoisonedSite, ServerCrash, TroubleResult


def trouble_of(
    trouble: Trouble,
    records: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    crash: ServerCrash | None,
    *,
    seed: int,
    deadline_s: float,
) -> TroubleResult | None:
    """Return what came of it; None where nothing was declared.

    Args:
        trouble: as declared.
        records: of the rounds of the study's own arm.
        names: of sites, by their number in records.
        crash: of the server.
        seed: of the arm, which says who dropped out.
        deadline_s: of the study.
    """
    if trouble == Trouble():
        return None
    dropped_out, too_late, waited_s = dict[str, list[int]](), dict[str, list[int]](), 0.0
    for record in records:
        number, waits = int(record["round"]), [0.0]
        for site in (names[node] for node in record["asked"]):
            if trouble.delay_s(site) > deadline_s:
                too_late.setdefault(site, []).append(number)
            elif trouble.drops_out(site, number, seed=seed):
                dropped_out.setdefault(site, []).append(number)
            else:
                waits.append(trouble.delay_s(site))
        waited_s += max(waits)
    poisoned = {site: _poisoned(site, trouble, records, names) for site in trouble.poisoned_sites}
    lost = sum(record["outcome"] != "aggregated" for record in records)
    return TroubleResult(
        dropped_out=dropped_out,
        too_late=too_late,
        waited_s=waited_s,
        rounds_lost=lost,
        poisoned=poisoned,
        server_crash=crash,
    )


def sentences(result: TroubleResult | None) -> list[str]:
    """Say it in words, for whoever reads tables and reports."""
    if result is None:
        return []
    lines = []
    for what, rounds in (("never came", result.dropped_out), ("came too late", result.too_late)):
        if rounds:
            answers, sites = _counted(sum(map(len, rounds.values())), "answer"), _counted(len(rounds), "site")
            lines.append(f"Trouble: {answers} of {sites} {what}; what was trained for them is paid for.")
    if result.waited_s:
        lines.append(f"Trouble: rounds would have waited {result.waited_s:g} s in all for slow sites.")
    if result.rounds_lost:
        were = "was" if result.rounds_lost == 1 else "were"
        lines.append(f"Trouble: {_counted(result.rounds_lost, 'round')} {were} lost below the quorum.")
    for site, one in result.poisoned.items():
        rejected = ((reason, _counted(count, "time")) for reason, count in one.rejected.items())
        reasons = "".join(f", rejected {times} ({reason})" for reason, times in rejected)
        doubts = f", named as quieter than its noise {_counted(one.quiet, 'time')}" if one.quiet else ""
        accepted = _counted(one.accepted, "time")
        lines.append(f"Trouble: {site!r} was POISONED ({one.poison}): accepted {accepted}{doubts}{reasons}.")
        if one.poison == "noise-free-update":
            lines.append(f"NOTHING protected the records of {site!r}: it added no noise, and no ε holds for it.")
    if (crash := result.server_crash) is not None:
        lines.append(
            f"Trouble: the server was cut off in round {crash.round}, and went on from its checkpoint after round "
            f"{crash.continued_after}."
        )
    return lines


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _poisoned(
    site: str, trouble: Trouble, records: Sequence[Mapping[str, Any]], names: Mapping[int, str]
) -> PoisonedSite:
    (node,) = (number for number, name in names.items() if name == site)
    accepted = sum(node in record["accepted"] for record in records)
    rejected = Counter(
        str(entry["reason"]) for record in records for entry in record["rejected"] if entry["node"] == node
    )
    quiet = sum(node in record.get("quiet", []) for record in records)
    return PoisonedSite(poison=str(trouble.poison), accepted=accepted, rejected=dict(rejected), quiet=quiet)
