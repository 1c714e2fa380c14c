"""Packages with plug-ins: small ones that are written down here, and the example that the guide speaks of."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

EXAMPLE = ROOT / "tests/support/example_plugin"


def write_package(site: Path, module: str, code: str, *, version: str = "1.0", **entries: str) -> Path:
    """Lay a package of one module into a folder of packages, as pip would.

    Args:
        site: the folder.
        module: its name; the package is called alike.
        code: of the module.
        version: of the package.
        entries: a plug-in's name and object by the last word of its group, as in aggregations="name=Object".
    """
    facts = site / f"{module}-{version}.dist-info"
    facts.mkdir(parents=True)
    (site / f"{module}.py").write_text(code)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    (facts / "RECORD").write_text(f"{module}.py,,\n")
    lines = [
        f"[fedvault.{group}]\n{name} = {module}:{target}\n"
        for group, (name, _, target) in ((group, entry.partition("=")) for group, entry in entries.items())
    ]
    (facts / "entry_points.txt").write_text("".join(lines))
    return site


def install_example(folder: Path) -> Path:
    """Install the example package with pip, offline, into a folder of packages of its own; return the folder."""
    source, site = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-build-isolation", "--no-deps"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, timeout=120)
    return site
