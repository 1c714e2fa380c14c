"""Remembers which questions were handed to which node, so that a node can name no other node's.

The memory is the truth; a file beside it survives a gateway that is killed while nodes train. What cannot be written
or read again is forgotten: an answer to it is refused, and its node keeps the answer for when it is asked again.
"""

import json
import logging
from base64 import b64decode, b64encode
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flwr.proto.message_pb2 import Metadata

from shared.files import append_private, write_private

log = logging.getLogger(__name__)
PER_NODE = 256
"""Questions kept of each node. One at a time is a task; the others are offers, at most one in two seconds."""
LINES_PER_QUESTION = 4
"""How many times longer than the memory the file may grow before it is written anew."""
LEAST_LINES = 1000


@dataclass(frozen=True)
class HandedMessage:
    """A message that a node was handed."""

    metadata: Metadata
    objects: frozenset[str]
    """Ids of Flower's objects in it."""


class HandedOut:
    """Keeps the latest questions of each node.

    Args:
        path: where they survive; None keeps them in memory alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._lines = path, 0
        self._by_node: defaultdict[int, OrderedDict[str, HandedMessage]] = defaultdict(OrderedDict)
        self._objects: Counter[str] = Counter()
        if path is not None and path.exists():
            self._read(path)

    def keep(self, node_id: int, metadata: Metadata, objects: Collection[str]) -> None:
        """Take note of a question before the node gets it."""
        question = HandedMessage(metadata, frozenset(objects))
        self._remember(node_id, question)
        if self._path is None:
            return
        try:
            if self._lines >= max(LEAST_LINES, LINES_PER_QUESTION * sum(map(len, self._by_node.values()))):
                self._write_anew(self._path)
            else:
                append_private(self._path, _line(node_id, question))
                self._lines += 1
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error.strerror)

    def question(self, node_id: int, message_id: str) -> HandedMessage | None:
        """Return a question that this node was handed."""
        return self._by_node[node_id].get(message_id)

    def has_object(self, node_id: int, run_id: int, object_id: str) -> bool:
        """Return whether an object belongs to a question of this run that this node was handed."""
        return any(object_id in question.objects for question in self._of_run(node_id, run_id))

    def has_run(self, node_id: int, run_id: int) -> bool:
        """Return whether this node was handed a question of this run."""
        return bool(self._of_run(node_id, run_id))

    def is_of_a_question(self, object_id: str) -> bool:
        """Return whether an object belongs to any question, of any node."""
        return object_id in self._objects

    def _of_run(self, node_id: int, run_id: int) -> list[HandedMessage]:
        return [question for question in self._by_node[node_id].values() if question.metadata.run_id == run_id]

    def _remember(self, node_id: int, question: HandedMessage) -> None:
        questions = self._by_node[node_id]
        self._forget(questions.pop(question.metadata.message_id, None))
        questions[question.metadata.message_id] = question
        self._objects.update(question.objects)
        if len(questions) > PER_NODE:
            self._forget(questions.popitem(last=False)[1])

    def _forget(self, question: HandedMessage | None) -> None:
        for object_id in () if question is None else question.objects:
            self._objects[object_id] -= 1
            if not self._objects[object_id]:
                del self._objects[object_id]

    def _read(self, path: Path) -> None:
        damaged = False
        for line in path.read_text(errors="replace").splitlines():
            self._lines += 1
            try:
                node_id, metadata, objects = json.loads(line)
                self._remember(
                    int(node_id), HandedMessage(Metadata.FromString(b64decode(metadata)), frozenset(map(str, objects)))
                )
            except Exception:
                # a line that a crash cut off, or that another version wrote
                log.warning("%s has a line that cannot be read; it is left out.", path)
                damaged = True
        if damaged:
            # a line that was cut off has no end: the next one would be added to it, and lost as well
            with suppress(OSError):
                self._write_anew(path)

    def _write_anew(self, path: Path) -> None:
        lines = [
            _line(node_id, question) for node_id, questions in self._by_node.items() for question in questions.values()
        ]
        write_private(path, "".join(lines).encode())
        self._lines = len(lines)


def _line(node_id: int, question: HandedMessage) -> str:
    metadata = b64encode(question.metadata.SerializeToString()).decode()
    return json.dumps([str(node_id), metadata, sorted(question.objects)]) + "\n"
