"""The ways of splitting one table into sites that a scenario may name; flwr-datasets' partitioners carry them out."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from shared.section import Positive, Section

Sites = Annotated[int, Field(ge=1, le=100_000)]


class ByColumn(Section):
    """A partition with one site per value of a column: the natural one."""

    by: Literal["column"]
    column: str


class Grouped(Section):
    """A partition whose sites hold several values of a column each, such as four wards to a hospital."""

    by: Literal["grouped"]
    column: str
    group_size: int = Field(ge=1)
    """Values a site; the last site may have fewer."""


class Iid(Section):
    """A partition that deals out rows, or units with all their rows, evenly at random."""

    by: Literal["iid"]
    sites: Sites


class BySize(Section):
    """A partition that deals out rows, or units, at random, in unequal shares."""

    by: Literal["size"]
    sites: Sites | None = None
    growth: Literal["linear", "square", "exponential"] = "linear"
    """Site k of K gets a share that grows as k, k squared, or e to the k."""
    sizes: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Rows, or units, of each site instead; what is left over belongs to no site."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.sites is None) == (not self.sizes):
            raise ValueError("partition.by = 'size' takes either sites, whose sizes grow, or the sizes themselves")
        return self


class Dirichlet(Section):
    """A partition that draws label proportions per site; the smaller alpha, the less alike are sites."""

    by: Literal["dirichlet"]
    sites: Sites
    alpha: Positive = 0.5
    column: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Whose values are skewed; default: the labels."""
    smallest: int = Field(default=0, ge=0, exclude_if=lambda value: value == 0)
    """Rows of the smallest site: it is drawn again until each has as many, ten times at most."""
    balanced: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether a site that has its even share gets no more."""


class Pathological(Section):
    """A partition whose sites hold a few labels each, and nothing of the others."""

    by: Literal["pathological"]
    sites: Sites
    labels_per_site: int = Field(ge=1)
    column: str | None = None
    """Whose values are dealt out; default: the labels."""
    assignment: Literal["random", "deterministic", "first-deterministic"] = "random"
    """Which labels a site gets: drawn, in turn, or the first in turn and the others drawn. Drawn, a label may go to no
    site; its rows are then left out."""


class Shards(Section):
    """A partition that sorts rows by label, cuts them into shards and deals these out (McMahan et al. 2017)."""

    by: Literal["shards"]
    sites: Sites
    shards_per_site: int = Field(default=2, ge=1)
    column: str | None = None
    """By which rows are sorted; default: the labels."""


class Continuous(Section):
    """A partition by the size of a number, such as an age: sites differ in it as strictly as you say."""

    by: Literal["continuous"]
    sites: Sites
    column: str
    """Which has to hold numbers."""
    strictness: float = Field(default=0.5, ge=0, le=1)
    """0: at random; 1: the lowest numbers at the first site, and so on."""


class FromFile(Section):
    """A partition that a CSV file says: its columns are `row`, from 1, and `site`. Rows it leaves out are not used."""

    by: Literal["file"]
    file: str
    """Relative to the folder of `source`. Every run writes its own as `prepared/partition.csv`."""


class ByPlugin(Section):
    """A partition that a plug-in makes: code of a package that is installed beside FedVault."""

    by: Literal["plug-in"]
    name: str = Field(pattern=r"^[a-z][a-z0-9._-]*$", max_length=40)
    """Under the entry points `fedvault.partitioners`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its own keys; it refuses those that it does not know."""


Kind = ByColumn | Grouped | Iid | BySize | Dirichlet | Pathological | Shards | Continuous | FromFile | ByPlugin
Partition = Annotated[Kind, Field(discriminator="by")]
WHOLE_UNITS = ("column", "iid", "grouped", "size", "file", "plug-in")
"""Partitions under which units stay whole, or whose sites the data themselves name."""


def column_of(how: Kind) -> str | None:
    """Return the column of the table that a partition reads, apart from the labels."""
    return getattr(how, "column", None)
