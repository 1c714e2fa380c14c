"""From one table to sites on disk: split, give every record its role, tokenise once."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from client.vault.datasets import TokenizedDataset, from_records, load
from client.vault.roles import Role, roles
from shared.adapted_model import layout_of
from shared.errors import DataError
from shared.files import write_atomically
from shared.foundation import find, load_tokenizer
from shared.privacy.planning import declared_size, plan
from shared.sources import read_table
from shared.tasks.kinds import task_kind
from simulations.partition import ByColumn, split
from simulations.scenario import Scenario


@dataclass(frozen=True)
class Site:
    """One simulated organisation."""

    index: int
    name: str
    rows: int
    train: int
    holdout: int
    dropped: int
    unusable: int
    """Training records with an unknown label or no text; they contribute nothing."""
    declared_size: int
    """What its operator would declare: the training records, rounded to two digits."""


@dataclass(frozen=True)
class Prepared:
    """All sites, and what was left out."""

    folder: Path
    sites: tuple[Site, ...]
    warnings: tuple[str, ...]

    def train_path(self, site: Site) -> Path:
        """Records to train on."""
        return self.folder / f"{site.index}.train.npz"

    def holdout_path(self, site: Site) -> Path:
        """Records never trained on."""
        return self.folder / f"{site.index}.holdout.npz"


def prepare(scenario: Scenario, source: Path, folder: Path) -> Prepared:
    """Read, split and tokenise; everything that can be wrong with the data is said here, before any training.

    Sites that declare fewer records than the study admits are left out, as a real node would refuse.

    Raises:
        DataError: no record carries one of the study's labels, or fewer sites than the quorum are left.
    """
    data = scenario.simulation.data
    columns = [data.text_column, data.label_column]
    if isinstance(data.partition, ByColumn):
        columns.append(data.partition.column)
    table = read_table(source, columns)
    _check_labels(scenario, table, source)
    seed = scenario.simulation.seed
    parts = split(table, data.partition, label_column=data.label_column, seed=seed)
    warnings = _left_without_site(len(table), parts.values())
    sites = [_site(scenario, folder, index, name, part) for index, (name, part) in enumerate(parts.items())]
    kept = tuple(site for site in sites if site.declared_size >= scenario.federation.smallest_declared_size)
    warnings += [_too_small(site, scenario) for site in sites if site not in kept]
    warnings += [f"{s.name}: {s.unusable} of {s.train} training records unusable." for s in kept if s.unusable]
    warnings += _delta_warnings(scenario, kept) + _noise_warnings(scenario, kept)
    if len(kept) < scenario.federation.quorum:
        raise DataError(
            f"Expected at least federation.quorum={scenario.federation.quorum} usable sites, got {len(kept)}.",
            hint="; ".join(warnings) or "Split the data into more sites, or lower federation.quorum.",
        )
    prepared = Prepared(folder, kept, tuple(warnings))
    if not any((load(prepared.holdout_path(site)).targets >= 0).any() for site in kept):
        raise DataError(
            "Expected usable held-out records at some site, got none.", hint="Raise simulation.data.holdout."
        )
    write_atomically(folder / "sites.json", json.dumps([asdict(s) for s in kept], indent=1).encode())
    write_atomically(folder / "warnings.json", json.dumps(warnings).encode())
    return prepared


def reopen(folder: Path) -> Prepared:
    """What `prepare` left in a folder."""
    sites = json.loads((folder / "sites.json").read_text())
    warnings = json.loads((folder / "warnings.json").read_text())
    return Prepared(folder, tuple(Site(**site) for site in sites), tuple(warnings))


def _site(scenario: Scenario, folder: Path, index: int, name: str, part: pd.DataFrame) -> Site:
    data = scenario.simulation.data
    texts, labels = part[data.text_column].tolist(), part[data.label_column].tolist()
    key = hashlib.sha256(f"fedvault simulation roles {scenario.simulation.seed}".encode()).digest()
    decided = np.array(roles(texts, labels, key=key, holdout=data.holdout, used=data.used), dtype=object)
    train = _tokenised(scenario, part[decided == Role.TRAIN])
    holdout = _tokenised(scenario, part[decided == Role.HOLDOUT])
    train.save(folder / f"{index}.train.npz")
    holdout.save(folder / f"{index}.holdout.npz")
    dropped = int((decided == Role.DROPPED).sum())
    declared = declared_size(len(train))
    return Site(index, name, len(part), len(train), len(holdout), dropped, train.unusable, declared)


def _tokenised(scenario: Scenario, part: pd.DataFrame) -> TokenizedDataset:
    data, kind = scenario.simulation.data, task_kind(scenario.task)
    texts, labels = part[data.text_column].tolist(), part[data.label_column].tolist()
    tokenizer = load_tokenizer(find(scenario.model))
    return from_records(kind.tokens(texts, tokenizer), kind.targets(texts, labels))


def _check_labels(scenario: Scenario, table: pd.DataFrame, source: Path) -> None:
    column = scenario.simulation.data.label_column
    found = table[column].str.strip()
    if not found.isin(scenario.task.labels).any():
        seen = ", ".join(map(repr, sorted(found.unique())[:5]))
        raise DataError(
            f"Expected labels {list(scenario.task.labels)} in column {column!r} of {source}, got {seen}.",
            hint="Write task.labels as they stand in the data.",
        )


def _left_without_site(rows: int, parts: Iterable[pd.DataFrame]) -> list[str]:
    lost = rows - sum(len(part) for part in parts)
    return [f"{lost} rows name no site and were left out."] if lost else []


def _too_small(site: Site, scenario: Scenario) -> str:
    smallest = scenario.federation.smallest_declared_size
    return f"Site {site.name!r} left out: {site.train} training records, federation.smallest_declared_size={smallest}."


def _noise_warnings(scenario: Scenario, sites: tuple[Site, ...]) -> list[str]:
    study = scenario.as_study()
    planned = plan(study.privacy, steps=study.total_steps)
    # the mean over sites: signals may add up fully, independent noise adds in quadrature
    signal = sum(planned.sampling_rate * site.declared_size for site in sites)
    noise = planned.noise_multiplier * math.sqrt(layout_of(study).length * len(sites))
    if noise <= signal:
        return []
    message = (
        f"In every step the noise is {noise / max(signal, 1):.1f} times as long as the longest possible signal: expect "
        "little. A larger epsilon or sampling rate, fewer steps, a smaller rank or fewer layers, or more records help."
    )
    return [message]


def _delta_warnings(scenario: Scenario, sites: tuple[Site, ...]) -> list[str]:
    delta, largest = scenario.privacy.delta, max((site.declared_size for site in sites), default=1)
    if delta <= 1 / (10 * largest):
        return []
    return [f"privacy.delta={delta:g} is above 1/(10 x {largest}), the usual limit for the largest site."]
