"""Finds packages that extend FedVault, by the entry points that they declare: servers and simulations load them.

A node has no code that looks for one: what a package does there it would do as any other program that its operator
installs. A plug-in runs with the rights of the process that loads it, so a server's operator installs what is trusted.
"""

import hashlib
from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from shared.errors import SettingsError
from shared.evidence.facts import PluginUse

Group = Literal["fedvault.aggregations", "fedvault.partitioners"]
AGGREGATIONS: Final = "fedvault.aggregations"
PARTITIONERS: Final = "fedvault.partitioners"
KEYS: dict[Group, str] = {
    AGGREGATIONS: "federation.aggregation",
    PARTITIONERS: "simulation.data.partition.name",
}
"""The key of a study or scenario that names a plug-in of each group."""
LONGEST_WORDS = 200


class Plugin(NamedTuple):
    """A plug-in that an installed package offers."""

    group: Group
    entry: EntryPoint
    package: Distribution

    def load(self) -> Any:
        """Import it.

        Raises:
            SettingsError: it cannot be imported.
        """
        try:
            return self.entry.load()
        except (Exception, SystemExit) as error:
            raise self.failed("be imported", error) from None

    def failed(self, what: str, error: BaseException | str) -> SettingsError:
        """Return the one sentence that names a plug-in which does not do what it should, and why."""
        reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        words = " ".join(reason.split())[:LONGEST_WORDS]
        return SettingsError(
            f"Expected the plug-in {self.entry.name!r} of {self.package.name} {self.package.version} to {what}, got "
            f"{words}",
            hint=f"Mend or update the package, or choose another {KEYS[self.group]}.",
        )

    @property
    def use(self) -> PluginUse:
        """Return what a record says of it."""
        return PluginUse(
            kind="aggregation" if self.group == AGGREGATIONS else "partitioner",
            name=self.entry.name,
            package=self.package.name,
            version=self.package.version,
            sha256=code_hash(self),
        )


def installed(group: Group) -> dict[str, list[Plugin]]:
    """Return the plug-ins of a group by name; nothing is imported."""
    by_name, seen = dict[str, list[Plugin]](), set[str]()
    for package in distributions():
        if package.name in seen:  # the first on the path counts, as for imports
            continue
        seen.add(package.name)
        for entry in package.entry_points.select(group=group):
            by_name.setdefault(entry.name, []).append(Plugin(group, entry, package))
    return by_name


def plugin(group: Group, name: str, *, built_in: str = "") -> Plugin:
    """Return the plug-in of a name.

    Args:
        group: that it belongs to.
        name: as a study or scenario says.
        built_in: names that FedVault knows by itself, for the error.

    Raises:
        SettingsError: no package offers it, or several do.
    """
    known = installed(group)
    offered = known.get(name, [])
    if not offered:
        others = ", ".join(sorted(known)) or "none"
        raise SettingsError(
            f"Expected {KEYS[group]} {f'among {built_in}, or ' if built_in else 'to be '}an installed plug-in, got "
            f"{name!r}.",
            hint=f"Install the package that offers it beside FedVault (pip install PACKAGE); it declares {name!r} "
            f"under the entry points {group!r}. Installed now: {others}.",
        )
    if len(offered) > 1:
        packages = " and ".join(sorted(one.package.name for one in offered))
        raise SettingsError(
            f"Expected one package with the plug-in {name!r}, got {packages}.", hint="Uninstall all but one of them."
        )
    return offered[0]


def code_hash(offered: Plugin) -> str:
    """Return the SHA-256 of a plug-in's code as it is installed: every file's path and content, but compiled ones."""
    total = hashlib.sha256()
    for name, path in sorted(_files(offered)):
        total.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n".encode())
    return total.hexdigest()


def _files(offered: Plugin) -> set[tuple[str, Path]]:
    """Return what the package lists, and what lies in the plug-in's own folder: an editable install lists no code."""
    listed = [(path, Path(str(offered.package.locate_file(path)))) for path in offered.package.files or ()]
    files = {(path.as_posix(), place) for path, place in listed if ".dist-info/" not in path.as_posix()}
    files |= set(_module_files(offered.entry.module.partition(".")[0]))
    return {(name, path) for name, path in files if path.suffix not in (".pyc", ".pth") and path.is_file()}


def _module_files(name: str) -> Iterator[tuple[str, Path]]:
    spec = find_spec(name)
    if spec is None:
        return
    for folder in map(Path, spec.submodule_search_locations or ()):
        yield from ((path.relative_to(folder.parent).as_posix(), path) for path in folder.rglob("*"))
    if spec.origin is not None and not spec.submodule_search_locations:
        yield Path(spec.origin).name, Path(spec.origin)
