"""Says on a model card whom a study's promise rests on, if its updates were summed behind masks."""

from collections.abc import Mapping
from typing import Any


def trust_setting(secure_sum: Mapping[str, Any]) -> str:
    """Return a paragraph for the card: what the server could open, and whom that rests on.

    Args:
        secure_sum: what happened in the run's secure sum; its roster is in it.
    """
    nodes, threshold, colluders = len(secure_sum["nodes"]), secure_sum["threshold"], secure_sum["colluders"]
    opened = (
        f"The server could open no single update, only the sum of a round, and only with {threshold} of the {nodes} "
        f"organisations, while at most {colluders} of them pooled what they know with it."
    )
    if secure_sum["mode"] == "masked":
        return f"{opened} Every organisation added all of its noise, so the epsilon above holds whoever colludes."
    return f"{opened} The organisations shared one noise, so the epsilon above rests on that number of colluders too."
