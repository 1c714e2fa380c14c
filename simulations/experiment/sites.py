"""Simulated sites that are prepared on disk: how large each one is, and where its records are."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.files import write_atomically

TESTED_FILE = "tested.json"
GLOBAL_TEST = "global test"
"""Name under which figures speak of a global test table."""


@dataclass(frozen=True)
class Site:
    """The figures of one simulated organisation."""

    index: int
    name: str
    rows: int
    train: int
    holdout: int
    dropped: int
    unusable: int
    """Training records that contribute nothing: an unknown label, no text, a missing file."""
    declared_size: int
    """What its operator would declare: the units trained on (records, by default), rounded to two digits."""
    problems: tuple[str, ...] = ()
    """The first few rows that something is wrong with, and what."""
    units: int | None = None
    """Units trained on, where privacy.unit is more than a record."""

    @property
    def unit_count(self) -> int:
        """Return how many units are trained on: records, or groups of records."""
        return self.train if self.units is None else self.units


@dataclass(frozen=True)
class Prepared:
    """The sites of a scenario, with a note on whatever was left out."""

    folder: Path
    sites: tuple[Site, ...]
    warnings: tuple[str, ...]
    tested: Site | None = None
    """One table that the global adapter is evaluated on, in place of the sites' own; it trains nothing."""

    @property
    def evaluated(self) -> tuple[Site, ...]:
        """Return those whose held-out records adapters are evaluated on."""
        return self.sites if self.tested is None else (self.tested,)

    def train_path(self, site: Site) -> Path:
        """Return the file of a site's records to train on."""
        return self.folder / f"{site.index}.train.npz"

    def flipped_path(self, site: Site) -> Path:
        """Return the file of a poisoned site's records, whose labels are flipped."""
        return self.folder / f"{site.index}.flipped.npz"

    def holdout_path(self, site: Site) -> Path:
        """Return the file of a site's records that are never trained on."""
        return self.folder / f"{site.index}.holdout.npz"

    def evaluation_path(self, site: Site) -> Path:
        """Return the file of a site's units that a private evaluation counts."""
        return self.folder / f"{site.index}.evaluation.npz"

    def groups_path(self, site: Site) -> Path:
        """Return the file of the groups of a site's held-out records, where rows are held out together."""
        return self.folder / f"{site.index}.groups.npy"

    def rows_path(self, site: Site) -> Path:
        """Return the file of the numbers that a site's usable held-out records have as rows of the table."""
        return self.folder / f"{site.index}.rows.npy"

    def subgroups_path(self, site: Site) -> Path:
        """Return the file of the subgroups of a site's held-out records."""
        return self.folder / f"{site.index}.subgroups.json"


@dataclass(frozen=True)
class Groups:
    """The unit of each held-out record: all records of one are held out together."""

    unit: str
    """Its name: the study's unit of privacy, or the column that the rows of one value share."""
    of_site: Mapping[str, NDArray[np.int64]]
    """Numbers of the units of a site's usable records, in order; equal numbers are one unit, also at two sites."""


def save_groups(names: Sequence[str], path: Path) -> None:
    """Write the groups of held-out records, by their names: a name has the same number at every site."""
    digests = [hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names]
    np.save(path, np.array([int.from_bytes(digest, "big", signed=True) for digest in digests], np.int64))


def held_out_groups(prepared: Prepared, unit: str) -> Groups | None:
    """Read the groups of all sites' held-out records; None where each record stands by itself."""
    if not all(prepared.groups_path(site).exists() for site in prepared.evaluated):
        return None
    return Groups(unit, {site.name: np.load(prepared.groups_path(site)) for site in prepared.evaluated})


def held_out_rows(prepared: Prepared) -> dict[str, list[int]]:
    """Read which row of the table each usable held-out record is, by site, in order; runs of before know none."""
    paths = {site.name: prepared.rows_path(site) for site in prepared.evaluated}
    return {name: np.load(path).tolist() for name, path in paths.items() if path.exists()}


def subgroups_of(prepared: Prepared) -> dict[str, dict[str, list[str]]]:
    """Read the subgroup of each usable held-out record, by column and site, in order; empty where none are compared."""
    by_site: dict[str, dict[str, list[str]]] = {
        site.name: json.loads(prepared.subgroups_path(site).read_text())
        for site in prepared.evaluated
        if prepared.subgroups_path(site).exists()
    }
    columns = [*next(iter(by_site.values()))] if by_site else []
    return {column: {site: values[column] for site, values in by_site.items()} for column in columns}


def save(prepared: Prepared) -> None:
    """Write which sites there are, beside their records; `reopen` reads it."""
    plain = [{key: value for key, value in asdict(site).items() if value is not None} for site in prepared.sites]
    write_atomically(prepared.folder / "sites.json", json.dumps(plain, indent=1).encode())
    if prepared.tested is not None:
        write_atomically(prepared.folder / TESTED_FILE, json.dumps(asdict(prepared.tested)).encode())
    # last: it says that all else is there
    write_atomically(prepared.folder / "warnings.json", json.dumps(prepared.warnings).encode())


def is_saved(folder: Path) -> bool:
    """Return whether a folder holds sites, all of them."""
    return (folder / "warnings.json").exists()


def reopen(folder: Path) -> Prepared:
    """Read the sites that were saved in a folder."""
    plain = json.loads((folder / "sites.json").read_text())
    warnings = json.loads((folder / "warnings.json").read_text())
    sites, tested = tuple(map(_site, plain)), folder / TESTED_FILE
    return Prepared(folder, sites, tuple(warnings), _site(json.loads(tested.read_text())) if tested.exists() else None)


def _site(plain: dict[str, Any]) -> Site:
    return Site(**plain | {"problems": tuple(plain["problems"])})
