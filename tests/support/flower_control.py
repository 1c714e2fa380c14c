"""Stands for Flower's Control API, with Flower's own rule that a key is taken once, whatever became of it since."""

from collections.abc import Collection

from server.flower.control import FlowerNode
from shared.errors import RunError


class Flower:
    """Flower's list of nodes, in memory; `away`, it answers nothing."""

    def __init__(self) -> None:
        self.keys: dict[int, str] = {}
        self.shut_out: set[int] = set()
        self.away, self.given = False, 0

    def register(self, public_key_pem: str) -> int:
        self._answers()
        if public_key_pem in self.keys.values():
            raise RunError("Expected Flower to accept RegisterNode, got 409: Public key already in use.")
        self.given += 1
        self.keys[self.given] = public_key_pem
        return self.given

    def start_afresh(self) -> None:
        self.keys.clear()

    def unregister(self, node_id: int) -> None:
        self._answers()
        self.shut_out.add(node_id)

    def nodes(self) -> list[FlowerNode]:
        self._answers()
        return [FlowerNode(number, self._status(number), key) for number, key in self.keys.items()]

    def present(self, node_ids: Collection[int]) -> set[int]:
        self._answers()
        return set(node_ids) & self.keys.keys() - self.shut_out

    def _status(self, number: int) -> str:
        return "unregistered" if number in self.shut_out else "online"

    def _answers(self) -> None:
        if self.away:
            raise RunError("away")
