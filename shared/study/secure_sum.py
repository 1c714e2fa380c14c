"""Decide which studies go with a secure sum, and how many nodes open one: t, c and h by the number of nodes n."""

from shared.errors import SettingsError
from shared.secure_sum.encoding import MOST_NODES
from shared.secure_sum.refusals import SecureSumError
from shared.secure_sum.thresholds import FEWEST_HONEST, FEWEST_NODES, Thresholds
from shared.study.sections import Adapter, Federation, Training


def sum_sizes(nodes: int, federation: Federation) -> Thresholds:
    """Return the numbers of a run with so many nodes: the study's own, or those of the rule; t is at least its quorum.

    Guarantee: two sums of one round cannot both be opened by nodes that collude: 2 t > n + c.

    Raises:
        SettingsError: with so many nodes they would not hold.
    """
    if nodes < FEWEST_NODES:
        raise SettingsError(
            f"Expected at least {FEWEST_NODES} nodes for a secure sum, got {nodes}.",
            hint="With fewer, each one knows the other's update: leave federation.secure_sum out.",
        )
    if nodes > MOST_NODES:
        raise SettingsError(
            f"Expected at most {MOST_NODES} nodes for a secure sum, got {nodes}.", hint="Make two federations of them."
        )
    usual = Thresholds.by_default(nodes)
    colluders = federation.colluders or usual.colluders
    own = federation.threshold or max(usual.threshold, (nodes + colluders) // 2 + 1)
    threshold = max(own, min(federation.quorum, nodes))  # operators were told that no fewer make a round
    try:
        return Thresholds(nodes, threshold, colluders)
    except SecureSumError:
        fewest = max((nodes + colluders) // 2 + 1, colluders + FEWEST_HONEST)
        raise SettingsError(
            f"Expected a threshold of at least {fewest}, more than half of {nodes} nodes and {colluders} colluders "
            f"together and {FEWEST_HONEST} above the colluders, and of at most {nodes}, got {threshold}.",
            hint="Change federation.threshold or federation.colluders, or wait for more nodes.",
        ) from None


def check_secure_sum(federation: Federation, adapter: Adapter, training: Training) -> None:
    """Refuse a study whose sum cannot be made behind masks, or whose noise cannot be shared.

    Raises:
        ValueError: naming the first rule that it breaks.
    """
    mode = federation.secure_sum
    if mode is None:
        for name in ("threshold", "colluders"):
            if getattr(federation, name) is not None:
                raise ValueError(f"federation.{name} only goes with federation.secure_sum")
        return
    if federation.cohort is not None:
        raise ValueError("federation.secure_sum goes with no federation.cohort: every node of the run is asked")
    if federation.wire != "float32":
        raise ValueError(f"federation.secure_sum sends whole numbers: leave out federation.wire = {federation.wire!r}")
    if not adapter.linear:
        raise ValueError(
            f"federation.secure_sum adds up what is sent, and the sum of adapters of adapter.method = "
            f"{adapter.method!r} is no adapter: use ffa-lora, ia3 or head-only"
        )
    if federation.threshold is not None and federation.threshold < (federation.colluders or 1) + FEWEST_HONEST:
        raise ValueError(
            f"federation.threshold must be above federation.colluders, which is 1 by default, by {FEWEST_HONEST}: the "
            "sum of one honest node hides nothing"
        )
    if mode == "shared":
        _check_shared(federation, training)


def _check_shared(federation: Federation, training: Training) -> None:
    if training.local_steps != 1:
        raise ValueError(
            "federation.secure_sum = 'shared' needs training.local_steps = 1: a node's later steps would read its "
            f"records through its own small share of the noise; set federation.rounds = "
            f"{federation.rounds * training.local_steps} for as many steps"
        )
    if federation.typical_size is None:
        raise ValueError(
            "federation.secure_sum = 'shared' needs federation.typical_size: the sum is divided by one public size"
        )
    if training.whitening:
        raise ValueError("federation.secure_sum = 'shared' does not go with training.whitening yet")
