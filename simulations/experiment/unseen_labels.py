"""Labels that a study declares and that no simulated site trains on: figures cannot speak of them."""

from collections.abc import Mapping, Sequence

from simulations.experiment.scenario import Scenario

LISTED = 20


def unseen_labels(scenario: Scenario, counts: Sequence[Mapping[str, int]]) -> list[str]:
    """Return a warning if no record that is trained on has one of the study's labels; nothing if all occur.

    Args:
        scenario: a task without labels, or of several tasks, gets no warning.
        counts: training records by label, for each site.
    """
    labels: Sequence[str] = getattr(scenario.task, "labels", ())
    present = [label for label in labels if any(of_site.get(label) for of_site in counts)]
    absent = [repr(label) for label in labels if label not in present]
    if not absent or not present:
        return []
    listed = ", ".join(absent if len(absent) <= LISTED else [*absent[:LISTED], "…"])
    only = f" Only {present[0]!r} occurs." if len(present) == 1 else ""
    return [f"No record that is trained on, at any site, has one of these task.labels: {listed}.{only}"]
