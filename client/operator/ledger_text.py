"""The ledger's figures as an operator reads them: sums that add up, and why so many more rounds fit."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from client.vault.ledger.budget import MOST_AFFORDED
from client.vault.ledger.rows import Decision
from shared.command_line import print_table
from shared.privacy.in_words import if_all_collude, in_words

DIGITS = Decimal("0.001")
WHY = (
    "Rounds cost less together than one by one, so figures of rounds do not simply add up. Whether more fit is checked "
    "at the Renyi order that the first approval fixed; the sums above are the lowest that hold, and may be lower."
)


class Sum(NamedTuple):
    """An account as a sum: the first three make the last, to the last digit that is shown."""

    spent: Decimal
    earmarked: Decimal
    left: Decimal
    """Below 0 if node.toml has become stricter than what is spent and earmarked."""
    limit: Decimal


def sum_of(account: Mapping[str, Any]) -> Sum:
    """Return an account's figures rounded so that they add up; what is spent or earmarked is never rounded down."""
    limit = Decimal(str(account["limit"]))
    digits = min(DIGITS, Decimal(1).scaleb(int(limit.as_tuple().exponent)))
    spent = _up(account["spent"], digits)
    used = max(spent, _up(account["spent"] + account["earmarked"], digits))
    return Sum(spent, used - spent, limit.quantize(digits) - used, limit.quantize(digits))


def _up(figure: float, digits: Decimal) -> Decimal:
    # what lies beyond the ninth digit is the arithmetic's, not the account's
    return Decimal(f"{figure:.9f}").quantize(digits, ROUND_CEILING)


def show(report: Mapping[str, Any]) -> None:
    """Print what `ledger_report.figures` returned."""
    print_table([_account_row(name, account) for name, account in report["datasets"].items()])
    for name, account in report["datasets"].items():
        print("\n".join(_account_lines(name, account)))  # noqa: T201 - a command speaks
    print_table(
        [
            {
                "run": name,
                "dataset": run["dataset"],
                "rounds paid": f"{run['paid']} of {run['rounds']}",
                "still earmarked": run["earmarked"],
                "more rounds that would fit": run["more_rounds_fit"],
            }
            for name, run in report["runs"].items()
        ]
    )
    for name, run in report["runs"].items():
        if run["decisions"]:
            print(f"{name}: {'; '.join(Decision(**one).in_words for one in run['decisions'])}.")  # noqa: T201
        print(why(name, run, report["datasets"][run["dataset"]]))  # noqa: T201
        if "roster" in run:
            print(f"{name}: {secure_sum(run)}")  # noqa: T201
        if "shares_noise" in run:
            print(f"{name}: {shared_noise(run)}")  # noqa: T201
    if report["runs"]:
        print(WHY)  # noqa: T201


def secure_sum(run: Mapping[str, Any]) -> str:
    """Return which roster a run's secure sum has, and for which rounds this node signed who is in the sum."""
    signed = (
        f"{number}" if purpose == "training" else f"{purpose} {number}" for number, purpose in run["survivors_signed"]
    )
    rounds = ", ".join(signed) or "no round yet"
    return f"It takes part in a secure sum with roster {run['roster'][:16]}; survivors signed for: {rounds}."


def why(name: str, run: Mapping[str, Any], account: Mapping[str, Any]) -> str:
    """Return one line on why so many more rounds of a run fit, and not one more."""
    more, limit = run["more_rounds_fit"], f"{account['limit']:g}"
    if account["withdrawn"]:
        return f"{name}: no more rounds, its records are withdrawn."
    if more >= MOST_AFFORDED:
        return f"{name}: rounds like its own cost next to nothing, any number of them fits."
    with_one = f"{run['epsilon_with_one_more']:.3f}"
    if not more:
        return f"{name}: no more rounds fit: one more would bring epsilon to {with_one}, the limit is {limit}."
    rounds = "one more round fits" if more == 1 else f"{more} more rounds fit"
    return f"{name}: {rounds}: epsilon is then {run['epsilon_with_them']:.3f} of {limit}; with one more, {with_one}."


def shared_noise(run: Mapping[str, Any]) -> str:
    """Return what a run with shared noise promises, and how that falls with the number of nodes that collude."""
    points = (f"{number}: {epsilon:.3g}" for number, epsilon in run["epsilon_by_colluders"])
    return f"{run['shares_noise']} Epsilon by the number of nodes that collude: {', '.join(points)}."


def _account_row(name: str, account: Mapping[str, Any]) -> dict[str, str]:
    figures = sum_of(account)
    return {
        "dataset": f"{name} (withdrawn)" if account["withdrawn"] else name,
        "spent": f"{figures.spent}",
        "+ earmarked": f"{figures.earmarked}",
        "+ left": "-" if account["withdrawn"] else f"{figures.left}",
        "= limit": f"{figures.limit}",
        "δ": f"{account['delta']:g}",
        "shares records with": ", ".join(account["shares_records_with"]) or "-",
    }


def _account_lines(name: str, account: Mapping[str, Any]) -> list[str]:
    figures, unit = sum_of(account), account["unit"]
    lines = [f"{name}, spent so far: {in_words(account['spent'], unit)}"]
    if "epsilon_if_all_collude" in account:
        limit = account["limit_if_all_collude"]
        lines.append(
            f"{name}, spent or earmarked if all other nodes of studies that share their noise collude: "
            f"{if_all_collude(account['epsilon_if_all_collude'])} of {'no limit' if limit is None else f'{limit:g}'}."
        )
    if account["withdrawn"]:
        return [*lines, f"{name} is withdrawn: nothing of what is left will ever be spent."]
    if figures.left < 0:
        over = f"{-figures.left} more is spent and earmarked than node.toml allows today"
        return [*lines, f"{name}: {over}; no round is trained that goes beyond its limit."]
    return [*lines, f"{name}, at its limit: {in_words(account['limit'], unit)}"]
