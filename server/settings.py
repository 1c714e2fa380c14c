"""`server.toml`, and the folder in which the coordination server keeps everything."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from shared.errors import SettingsError
from shared.files import private_folder, require_access, write_private_once
from shared.section import Section
from shared.settings_page import settings_page
from shared.study.parsing import parse, read_toml

SECRET_BYTES = 32


class ServerSettings(Section):
    """The settings in `server.toml`."""

    hosts: tuple[str, ...] = Field(min_length=1)
    """Host names and addresses that nodes use; the first one goes into invites."""
    listen: str = "0.0.0.0"  # noqa: S104 - the one port that is meant to be reached
    """Address the gateway listens on."""
    port: int = Field(default=8443, ge=1, le=65535)
    """Port of the gateway."""
    superlink_port: int = Field(default=8000, ge=1, le=65535)
    """Port of Flower's SuperLink; on loopback only."""
    metrics_port: int = Field(default=9464, ge=0, le=65535)
    """Port of Prometheus metrics, at `metrics_listen`; 0 = none."""
    metrics_listen: str = "127.0.0.1"
    """Address the metrics listen on; "0.0.0.0" in a container. They have neither login nor TLS and name the nodes: only
    for a network that the operator trusts."""
    database: str = ""
    """Run store as a database URL; default: SQLite in this folder. PostgreSQL: postgresql+psycopg://…"""
    largest_body_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Largest request a node may send."""
    requests_per_s: float = Field(default=50.0, gt=0, allow_inf_nan=False)
    """Requests per second and node, in the long run."""
    connections_without_certificate: int = Field(default=512, ge=1)
    """Connections that have not shown a node's certificate, at a time; for a new one the oldest ends."""
    connections_per_address: int = Field(default=256, ge=1)
    """Those of one address. Behind a front, all nodes have its address: then as many as of all together."""
    connections_per_s: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    """Connections a second that one address may open without a node's certificate, in the long run; ten times as many
    at once. Behind a front, all nodes have its address: then high, and the front limits what an address may open."""
    flower_database_limit_bytes: int = Field(default=2 * 2**30, ge=2**20)
    """Flower's own database keeps every run; above this size it is started afresh between runs, once after each."""
    grace_s: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    """Seconds that a round which has its quorum waits for the other nodes, if the quorum itself took no longer: then it
    is as long again. Never beyond the study's `deadline_s`. A node that comes later has spent its step in vain."""
    evaluation: str = ""
    """A table that the server's operator owns, to measure every round on; with the columns of the study's task.
    Relative to the server's folder; empty: rounds are not measured."""
    evaluation_columns: dict[str, str] = Field(default_factory=dict)
    """What the task's columns are called in it, as in { text = "review", label = "stars" }; default: the same."""
    operators: bool = False
    """Whether operators with a certificate reach the server's page at https://HOST:PORT/operator/, from other machines
    as well; true or false. `fedvault-server operator NAME` issues one. Takes effect at the next start."""
    mlflow: str = ""
    """URI of an MLflow server that receives every run's settings, rounds and adapter, as in https://mlflow.example.org;
    empty: none does. It learns nodes' names, and what each has spent. Needs the extra `tracking`."""


@dataclass(frozen=True)
class Home:
    """The server's folder, and the place of everything in it."""

    folder: Path

    @property
    def config(self) -> Path:
        """Return the path of server.toml."""
        return self.folder / "server.toml"

    @property
    def keys(self) -> Path:
        """Return the folder of authority, certificates and secrets."""
        return self.folder / "keys"

    @property
    def runs(self) -> Path:
        """Return the folder of checkpoints and finished adapters, by run."""
        return self.folder / "runs"

    @property
    def flower(self) -> Path:
        """Return the folder of Flower's own database."""
        return self.folder / "flower"

    @property
    def mailbox(self) -> Path:
        """Return the file that holds the messages between a run and its nodes."""
        return self.flower / "mailbox.db"

    @property
    def running(self) -> Path:
        """Return the folder of the supervisor's lock and state."""
        return self.folder / "run"

    @property
    def logs(self) -> Path:
        """Return the folder of logs, one file per process."""
        return self.folder / "logs"

    @property
    def default_database(self) -> Path:
        """Return the file of the run store, unless server.toml names a database."""
        return self.folder / "fedvault.db"

    def require(self) -> None:
        """Return if a server's folder is here, and this user's.

        Raises:
            AccessError: it is another user's.
            SettingsError: it is not there.
        """
        require_access(self.folder)
        if not self.config.exists():
            raise SettingsError(
                f"Expected {self.config}, got nothing.", hint="Run: fedvault-server init --host your.host.name"
            )

    def settings(self) -> ServerSettings:
        """Read server.toml.

        Raises:
            AccessError: it is another user's.
            SettingsError: it is not there or not valid.
        """
        self.require()
        return parse(ServerSettings, read_toml(self.config), where=str(self.config))

    def database(self) -> str:
        """Return the URL of the run store."""
        return self.settings().database or f"sqlite:///{self.default_database.resolve()}"

    def secret(self) -> str:
        """Return the secret of requests to Flower on this machine; made at first use, readable by this user alone."""
        return _secret(self.keys / "loopback.secret")

    def superexec_secret(self) -> bytes:
        """Return the secret with which a process takes a run's task from Flower."""
        return _secret(self.keys / "superexec.secret").encode()


def _secret(path: Path) -> str:
    if not path.exists():
        private_folder(path.parent)
        write_private_once(path, secrets.token_hex(SECRET_BYTES).encode())  # whoever is first wins: both read the same
    return path.read_text()


def markdown() -> str:
    """Return the page that explains every key of server.toml."""
    opening = (
        "`fedvault-server init` writes a file to begin with, in the server's folder. A key that is left out has its "
        "default, and a key that is not listed here is refused."
    )
    return settings_page("server.toml: every key", "server.settings", opening, [("", ServerSettings)])


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201 - this is the command's output
