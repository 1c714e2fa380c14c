"""One name for the arm of the largest site over runs in which another site is the largest. Pure, no IO."""

from typing import TypeVar

from simulations.results.result import Result

SINGLE_SITE, LARGEST = "single-site", "largest"
TITLE = "largest site alone"
T = TypeVar("T")


def folded(result: Result) -> Result:
    """Return a result whose arm of the largest site bears no site's name, so that it is one arm over runs.

    A scenario that names the site itself, or has an arm for each, keeps the names.
    """
    names = [name for name in result.arms if name.startswith(f"{SINGLE_SITE}:")]
    if result.scenario.get("simulation", {}).get("single_site", LARGEST) != LARGEST or len(names) != 1:
        return result
    (name,) = names
    arm = result.arms[name].model_copy(update={"title": TITLE})
    changes = {
        "arms": _renamed(result.arms | {name: arm}, name),
        "baselines": _renamed(result.baselines | {name: arm}, name),
        "differences": _renamed(result.differences, name),
    }
    return result.model_copy(update=changes)


def _renamed(by_arm: dict[str, T], name: str) -> dict[str, T]:
    return {SINGLE_SITE if one == name else one: value for one, value in by_arm.items()}
