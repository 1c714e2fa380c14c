"""Tells what nobody should find in a folder that is handed out: an empty form, or a path of this machine."""

import re
import sys
import tempfile
from pathlib import Path

from tests.support.paths import ROOT

FORM = "More Information Needed"
HERE = tuple({f"{Path(place)}/" for place in (ROOT, Path.home(), tempfile.gettempdir(), sys.prefix, Path.cwd())})
WHOLE_PATH = re.compile(r"(?<![\w.:/~<-])/(?:[\w.@-]+/)+[\w.@-]+|(?<!\w)[A-Z]:\\+\w")
WRITTEN = ("README.md", "adapter_config.json", "config.json", "generation_config.json", "fedvault.json")
"""Files whose every word is ours; others, such as vocabularies, may hold any text."""


def unfit(folder: Path) -> list[str]:
    """Return every such place as `file: text`."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes().decode(errors="replace")
        texts = [text for text in (FORM, *HERE) if text in content]
        texts += WHOLE_PATH.findall(content) if path.name in WRITTEN else []
        found += [f"{path.name}: {text}" for text in texts]
    return found
