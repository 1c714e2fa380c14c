"""Says how many nodes a run's secure sum can be of: the study and the number of nodes that are able decide."""

from shared.errors import SettingsError
from shared.secure_sum.encoding import MOST_NODES
from shared.secure_sum.thresholds import FEWEST_NODES
from shared.study.declaration import Study
from shared.study.secure_sum import sum_sizes


def allows(study: Study, nodes: int) -> bool:
    """Return true if a study allows a secure sum of so many nodes."""
    try:
        sum_sizes(nodes, study.federation)
    except SettingsError:
        return False
    return True


def fewest_nodes(study: Study) -> int:
    """Return the fewest nodes that a run of a study with a secure sum can begin with.

    Raises:
        SettingsError: no number of nodes is enough.
    """
    quorum = max(study.federation.quorum, FEWEST_NODES)
    for nodes in range(quorum, MOST_NODES + 1):
        if allows(study, nodes):
            return nodes
    raise SettingsError(
        f"Expected a secure sum of {quorum} to {MOST_NODES} nodes, got numbers that go with none.",
        hint="Change federation.quorum, federation.threshold or federation.colluders.",
    )


def most_nodes(study: Study, able: int) -> int:
    """Return how many of so many able nodes a roster holds: all, or as many as the study's numbers allow."""
    return next((nodes for nodes in range(min(able, MOST_NODES), 0, -1) if allows(study, nodes)), 0)


def expected_numbers(study: Study, enrolled: int) -> dict[str, int | str | None]:
    """Return the numbers of a run in which every enrolled node takes part, or as few as it can begin with."""
    fewest = fewest_nodes(study)
    sizes = sum_sizes(max(fewest, most_nodes(study, enrolled)), study.federation)
    return {"mode": study.federation.secure_sum, "fewest_nodes": fewest, **vars(sizes)}
