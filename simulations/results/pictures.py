"""Take a result's drawings out of its report, by name, as SVG that a notebook shows."""

from shared.evidence.simulation_parts import simulation_parts
from shared.evidence.texts import Texts
from shared.pages.blocks import Picture
from simulations.results.report import report_of
from simulations.results.result import Result

TITLES = {"sim.differences": "differences", "sim.rounds": "rounds"}
"""Of drawings, by their key in the catalogue of texts; the remaining one shows the arms."""


class Svg(str):
    """A drawing as SVG; a notebook draws it, and `print` writes it."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def pictures_of(result: Result) -> dict[str, Svg]:
    """Return the drawings of a result's report: `arms`, and where there is more than one of each `differences` and
    `rounds`."""
    texts = Texts("en")
    drawn = [block for block in simulation_parts(report_of([result]), texts) if isinstance(block, Picture)]
    names = {texts(key): name for key, name in TITLES.items()}
    return {names.get(picture.says.split(". ", 1)[0], "arms"): Svg(picture.svg) for picture in drawn}
