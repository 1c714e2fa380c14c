"""What faults are done to: a study underway at nodes of a federation, and how to wait for what comes of them."""

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
    """A study underway.

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
        """Finished rounds."""
        found: list[Record] = self.federation.run(self.run)["history"]
        return found

    def study(self) -> Study:
        """As the server declared it."""
        with Store(Home(self.federation.home).database()) as store:
            return store.run(self.run).study

    def node_id(self, name: str) -> int:
        """Flower's number of a node."""
        names = self.federation.run(self.run)["nodes"]
        return next(int(number) for number, known in names.items() if known == name)

    def after(self, look: Callable[[Record], bool], what: str, *, timeout_s: float = 300.0) -> Record:
        """The first round finished from now on of which this is true."""
        past = len(self.records())
        found: list[Record] = []

        def seen() -> bool:
            found[:] = [record for record in self.records()[past:] if look(record)]
            return bool(found)

        wait_until(seen, what, timeout_s=timeout_s)
        return found[0]

    def accepted(self, name: str) -> Callable[[Record], bool]:
        """Whether a round accepted a node."""
        number = self.node_id(name)
        return lambda record: number in record["accepted"]

    def refused(self, name: str, status: str) -> Callable[[Record], bool]:
        """Whether a node refused a round for this reason."""
        number = self.node_id(name)
        return lambda record: {"node": number, "status": status} in record["refused"]

    def all_accepted(self) -> Record:
        """A round that all honest nodes took part in."""
        numbers = {self.node_id(name) for name in self.honest}
        return self.after(lambda record: numbers <= set(record["accepted"]), "a round with everyone")
