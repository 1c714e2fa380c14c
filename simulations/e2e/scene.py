"""A study underway, to which faults are done, and how to wait for what comes of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.run_store.store import Store
from server.settings import Home
from shared.study.declaration import Study
from simulations.e2e.federation import Federation, wait_until

Record = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A study underway at nodes of a federation.

    Args:
        federation: with its server and nodes running.
        run: approved by `honest`.
        honest: three or more nodes.
        rogue: the name of one that is enrolled and not running.
        tight: one of the honest, whose budget has room for the study and one short one, by `limit_for_one`.
    """

    federation: Federation
    run: str
    honest: list[str]
    rogue: str
    tight: str

    def records(self) -> list[Record]:
        """Return the finished rounds."""
        history: list[Record] = self.federation.run(self.run)["history"]
        return history

    def study(self) -> Study:
        """Return the study as the server declared it."""
        with Store(Home(self.federation.home).database()) as store:
            return store.run(self.run).study

    def node_id(self, name: str) -> int:
        """Return Flower's number of a node."""
        names = self.federation.run(self.run)["nodes"]
        return next(int(number) for number, known in names.items() if known == name)

    def after(self, look: Callable[[Record], bool], what: str, *, timeout_s: float = 300.0) -> Record:
        """Wait for a round, finished from now on, of which a condition is true."""
        past = len(self.records())
        matches: list[Record] = []

        def seen() -> bool:
            matches[:] = [record for record in self.records()[past:] if look(record)]
            return bool(matches)

        wait_until(seen, what, timeout_s=timeout_s)
        return matches[0]

    def accepted(self, name: str) -> Callable[[Record], bool]:
        """Return whether a round accepted a node."""
        number = self.node_id(name)
        return lambda record: number in record["accepted"]

    def refused(self, name: str, status: str) -> Callable[[Record], bool]:
        """Return whether a node refused a round for this reason."""
        number = self.node_id(name)
        return lambda record: {"node": number, "status": status} in record["refused"]

    def all_accepted(self) -> Record:
        """Return whether all honest nodes took part in a round."""
        numbers = {self.node_id(name) for name in self.honest}
        return self.after(lambda record: numbers <= set(record["accepted"]), "a round with everyone")
