"""`node.toml`: where a node keeps its things, and what each dataset may be used for."""

from pathlib import Path

from pydantic import Field

from client.vault.policy import DatasetPolicy
from shared.errors import SettingsError
from shared.study import Section, parse, read_toml

TEMPLATE = """\
# What this node allows. Every key and its meaning: client/vault/policy.py

[node]
home = "node"                     # key, ledger and record index; this user's alone
ledger_copy = "node-ledger-copy"  # height and head of the ledger again; another disk is better

# [datasets.ward]
# source = "ward.csv"
# epsilon = 3.0                   # the most these records may ever spend, over all studies
# delta = 1e-5
# declared_size = 8500            # public, rounded to two digits
# models = ["<fingerprint>"]      # base models that may be used
"""


class Node(Section):
    """[node]"""

    home: str = "node"
    """Folder for key, ledger and record index, relative to node.toml."""
    ledger_copy: str = "node-ledger-copy"
    """Folder for the ledger's second copy of height and head."""


class NodeSettings(Section):
    """The whole file."""

    node: Node = Node()
    datasets: dict[str, DatasetPolicy] = Field(default_factory=dict)
    """By name."""

    def policy(self, dataset: str) -> DatasetPolicy:
        """One dataset's policy.

        Raises:
            SettingsError: there is none of that name.
        """
        if dataset not in self.datasets:
            names = ", ".join(self.datasets) or "none"
            raise SettingsError(f"Expected a dataset of node.toml ({names}), got {dataset!r}.")
        return self.datasets[dataset]


def load_node(path: Path) -> NodeSettings:
    """Read node.toml.

    Raises:
        SettingsError: it is not there or not valid; each problem with its key's path.
    """
    if not path.exists():
        raise SettingsError(f"Expected {path}, got nothing.", hint="Run: fedvault-node init")
    return parse(NodeSettings, read_toml(path), where=str(path))
