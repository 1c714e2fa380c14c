"""`node.toml`: where a node keeps its things, and what each dataset may be used for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from client.policy import FINGERPRINT, DatasetPolicy
from shared.errors import SettingsError
from shared.section import Section
from shared.secure_sum.thresholds import OwnPolicy
from shared.settings_page import settings_page
from shared.spelling import meant
from shared.study.parsing import parse, read_toml
from shared.study.sections import Performance

TEMPLATE = """\
# What this node allows. Every key and its meaning: client/NODE_TOML.md

[node]
home = "node"                     # key, ledger and record index; this user's alone
ledger_copy = "node-ledger-copy"  # height and head of the ledger again; another disk is better

# [models]                        # names for base models; `fedvault-node models` prints these lines
# minilm = "<fingerprint>"

# [datasets.ward]
# source = "ward.csv"
# epsilon = 3.0                   # the most these records may ever spend, over all studies
# epsilon_per_study = 1.0         # the most one study may spend of it
# readable_columns = ["text", "label"]   # studies may read no others
# delta = 1e-5
# declared_size = 8500            # public, rounded to two digits
# models = ["minilm"]             # base models that may be used
"""


class Node(Section):
    """[node]; folders are relative to node.toml."""

    home: str = "node"
    """Folder for key, ledger, record index, snapshots, logs."""
    ledger_copy: str = "node-ledger-copy"
    """Folder for the ledger's second copy of height and head."""
    models: str = "models"
    """Folder of base models, one folder each; a study names a fingerprint and nothing is downloaded."""
    socket_group: int | None = None
    """Group that may use the vault's socket as well, for a link in a container of its own."""
    release_slot_s: float = Field(default=0.0, ge=0, le=86_400, allow_inf_nan=False)
    """Updates leave only at whole multiples of this many seconds, so that their moment says less; 0 = at once."""
    local_metrics: bool = True
    """Measure received adapters on this node's held-out records; shown by `status`, never sent."""


class Server(Section):
    """[server]: how to reach the server, beyond what the invite says."""

    proxy: str | None = None
    """Outbound HTTPS proxy, as in http://proxy.example:3128. One that inspects TLS must let the server pass unopened:
    this node's certificate does not survive it, and without one a node can join and do no more."""
    extra_ca: str | None = None
    """File with one more certificate authority, for a proxy that shows a certificate of its own; relative to
    node.toml."""

    def authority(self, base: Path) -> Path | None:
        """The extra authority's file; `base` is the folder of node.toml."""
        return base / self.extra_ca if self.extra_ca else None


class PinnedPeer(Section):
    """[peers]: another node of the federation, by the key of its certificate. What is not here counts as a colluder."""

    key: str
    """Fingerprint of its certificate's public key, 64 hexadecimal digits, as its operator reads it out to you:
    `fedvault-node peers` shows what the server says. `NAME = "fingerprint"` alone is enough."""
    owner: str = ""
    """Whose node it is. Nodes with one owner count as colluding together; without an owner each stands for itself."""

    @field_validator("key")
    @classmethod
    def _fingerprint(cls, key: str) -> str:
        if not FINGERPRINT.fullmatch(key):
            raise ValueError("a peer's key is a fingerprint, 64 hexadecimal digits; `fedvault-node peers` prints it")
        return key


class NodeSettings(Section):
    """The whole file."""

    node: Node = Node()
    """Folders, and what this node does besides training."""
    server: Server = Server()
    """How to reach the server."""
    performance: Performance = Performance()
    """This machine's own speed settings."""
    models: dict[str, str] = Field(default_factory=dict)
    """Names for base models that datasets allow, each pinned to its fingerprint: 64 hexadecimal digits."""
    peers: dict[str, PinnedPeer] = Field(default_factory=dict)
    """Nodes whose keys this node's operator has compared with their operators, by their names."""
    datasets: dict[str, DatasetPolicy] = Field(default_factory=dict)
    """What may be done with each dataset, by its name."""

    @property
    def pins(self) -> dict[str, str]:
        """Owners of peers by their keys' fingerprints; empty for a peer that stands for itself."""
        return {peer.key: peer.owner for peer in self.peers.values()}

    def own_policy(self, rules: DatasetPolicy) -> OwnPolicy:
        """Return what is asked of a run with a secure sum, by a dataset's rules and by whom the operator has pinned."""
        return OwnPolicy(self.pins, rules.colluders, rules.smallest_cohort)

    @field_validator("peers", mode="before")
    @classmethod
    def _peers_by_key_alone(cls, declared: Any) -> Any:
        if not isinstance(declared, dict):
            return declared
        return {name: {"key": peer} if isinstance(peer, str) else peer for name, peer in declared.items()}

    @field_validator("peers")
    @classmethod
    def _one_name_a_key(cls, peers: dict[str, PinnedPeer]) -> dict[str, PinnedPeer]:
        names = dict[str, str]()
        for name, peer in peers.items():
            if (other := names.setdefault(peer.key, name)) != name:
                raise ValueError(f"{other} and {name} have one key: a key is of one peer")
        return peers

    @model_validator(mode="before")
    @classmethod
    def _models_by_name(cls, declared: Any) -> Any:
        """Put the fingerprint where a dataset names a model; what has no name stays, for its own check to refuse."""
        if not (isinstance(declared, dict) and isinstance(models := declared.get("models"), dict)):
            return declared
        datasets = declared.get("datasets")
        if not isinstance(datasets, dict):
            return declared
        return declared | {"datasets": {name: _pinned(policy, models, name) for name, policy in datasets.items()}}

    @field_validator("models")
    @classmethod
    def _fingerprints(cls, models: dict[str, str]) -> dict[str, str]:
        unfit = [name for name, fingerprint in models.items() if not FINGERPRINT.fullmatch(fingerprint)]
        if unfit:
            raise ValueError(f"{unfit[0]} is a fingerprint, 64 hexadecimal digits; `fedvault-node models` prints it")
        return models


def _pinned(policy: Any, models: dict[str, Any], dataset: str) -> Any:
    if not (isinstance(policy, dict) and isinstance(named := policy.get("models"), list)):
        return policy
    for name in named:
        if isinstance(name, str) and name not in models and (close := meant(name, models)) is not None:
            raise ValueError(f"datasets.{dataset}.models: [models] has no {name!r}; it has {close!r}")
    return policy | {"models": [models.get(model, model) if isinstance(model, str) else model for model in named]}


def load_node(path: Path) -> NodeSettings:
    """Read node.toml.

    Raises:
        SettingsError: it is not there or not valid; each problem with its key's path.
    """
    if not path.exists():
        raise SettingsError(f"Expected {path}, got nothing.", hint="Run: fedvault-node init")
    return parse(NodeSettings, read_toml(path), where=str(path))


@dataclass(frozen=True)
class Folders:
    """The folders and files of a node; the vault's and the link's never share a folder, only the socket's."""

    home: Path
    ledger_copy: Path
    models: Path
    ledger: Path
    """The ledger's database."""
    second_copy: Path
    """The ledger's height and head again."""
    records: tuple[Path, Path]
    """Record index and its key."""
    offers: Path
    """Studies the server showed."""
    approved: Path
    """Snapshots of approved runs."""
    cache: Path
    """Activations of the frozen layers: private data."""
    metrics: Path
    """Local metrics, a line of JSON each."""
    running: Path
    """Socket, process ids."""
    socket: Path
    """The vault's."""
    operator_socket: Path
    """The vault's other one, for its operator's page; in a folder that no link's container mounts."""
    secure_sum: Path
    """Keys, rosters and shares of secure sums: secret, and in no backup."""
    personal: Path
    """Personal adapters: made without privacy, for this node's own eyes, and in no backup."""
    personal_log: Path
    """When one was made, a line of JSON each."""
    link: Path
    """The node's key, its certificate, and what the invite said."""
    logs: Path
    """One file per process."""


def folders(config: Path, settings: NodeSettings) -> Folders:
    """Return the folders of the node whose settings lie in `config`.

    Raises:
        SettingsError: the ledger's second copy would lie inside the home, and go and come back with it.
    """
    base, node = config.resolve().parent, settings.node
    home, ledger_copy = base / node.home, base / node.ledger_copy
    if ledger_copy.resolve().is_relative_to(home.resolve()):
        raise SettingsError(
            f"Expected node.ledger_copy outside node.home, got {node.ledger_copy!r} inside {node.home!r}.",
            hint="A backup or a restore of the home would take it along, and nothing could tell an old ledger. "
            "Name a folder elsewhere, move head.json there.",
        )
    return Folders(
        home=home,
        ledger_copy=ledger_copy,
        models=base / node.models,
        ledger=home / "ledger.db",
        second_copy=ledger_copy / "head.json",
        records=(home / "records.db", home / "record.key"),
        offers=home / "offers",
        approved=home / "approved",
        cache=home / "cache",
        metrics=home / "metrics.jsonl",
        running=home / "run",
        socket=home / "run" / "vault.sock",
        operator_socket=home / "operator" / "sock",
        secure_sum=home / "secure_sum",
        personal=home / "personal",
        personal_log=home / "personal.jsonl",
        link=home / "link",
        logs=home / "logs",
    )


def markdown() -> str:
    """Return the page that explains every key of node.toml."""
    opening = (
        "`fedvault-node init` writes a file to begin with. A key that is left out has its default, and a key that is "
        "not listed here is refused. `[models]` gives base models a name each, pinned to a fingerprint of 64 "
        "hexadecimal digits: `fedvault-node models` prints its lines. `fedvault-node doctor` checks the file."
    )
    parts: list[tuple[str, type[Section]]] = [
        ("`[node]`", Node),
        ("`[server]`", Server),
        ("`[datasets.NAME]`", DatasetPolicy),
        ("`[peers.NAME]`", PinnedPeer),
        ("`[performance]`", Performance),
    ]
    return settings_page("node.toml: every key", "client.settings", opening, parts)


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201 - this is the command's output
