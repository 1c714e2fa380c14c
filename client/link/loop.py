"""The network side of a node: long-lived, without data and without torch, back after whatever happens to the network.

| what happens | what the link does |
|---|---|
| the server or the network is away | waits, longer each time and never the same, and keeps trying |
| the server does not accept the node | says so in its log and state, and keeps asking; that a clock is wrong too |
| this machine's disk is full | the same; nothing it holds is lost, and it does not leave |
| the link is killed | the message it had not answered is on disk; it continues with that one |
| the vault dies in training | waits for it; the vault says what it lost |
| a message is nonsense, or nobody waits for its answer any more | drops it, and continues with the next |
| the answer is not wanted any more | drops it; the vault keeps it |
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Message

from client.answer import Vault, answer
from client.link.fleet import CUT, Fleet, NotAccepted, Received, Refused, WrongClock
from client.link.inbox import Inbox
from client.link.long_poll import LongPoll
from shared.files import write_atomically
from shared.processes.faults import Faults
from shared.protocol.evaluation_records import is_evaluation

log = logging.getLogger(__name__)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
BUSY_POLL_S, IDLE_POLL_S, BUSY_FOR_S = 0.2, 2.0, 120.0
"""How often the server is asked where it does not let nodes wait, for a while after a message and later."""
WAITING_POLL_S = 120.0
"""How often it is asked beside waiting: what woke the node may have been lost."""
HEARTBEAT_EVERY_S = 12.0
"""How often the node says that it is there, unless its waits say so."""
CLOCK_SKEW_S = 300.0
"""What the clocks of node and server may differ by: no task is taken for expired before it is."""


@dataclass
class LinkState:
    """The link's state, as `status` shows it."""

    connected: bool
    since: str
    node_id: int
    server: str
    trouble: str
    """Why it is not connected; empty if it is."""


def read_link(folder: Path) -> LinkState:
    """Read the state that the link last wrote."""
    try:
        return LinkState(**json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError, TypeError):
        return LinkState(connected=False, since="", node_id=0, server="", trouble="it has not run yet")


class Link:
    """Runs until it is stopped.

    Args:
        connect: opens a connection.
        vault: answers.
        folder: the link's own: state and inbox.
        server: address, for the state.
        node_id: as the server said at enrolment.
        stop: ends the link.
        wait: waits, or returns True at once when it should stop; for tests.
    """

    def __init__(
        self,
        connect: Callable[[], Fleet],
        vault: Vault,
        folder: Path,
        *,
        server: str,
        node_id: int = 0,
        stop: threading.Event,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._connect, self._vault, self._folder, self._server = connect, vault, folder, server
        self._node_id = node_id
        self._stop, self._wait = stop, wait or stop.wait
        self._inbox = Inbox(folder / "inbox")
        self._failures, self._faults = 0, Faults()

    def run(self) -> None:
        """Stay connected, answer messages, until `stop`."""
        while not self._stop.is_set():
            try:
                self._session()
            except (*CUT, NotAccepted, Refused, OSError) as error:
                trouble = _trouble(error)
                self._say(connected=False, trouble=trouble)
                self._back_off(trouble)
        self._say(connected=False, trouble="stopped")

    def _session(self) -> None:
        fleet = self._connect()
        gone = threading.Event()
        try:
            fleet.activate(self._known())
            self._say(connected=True, node_id=fleet.node_id)
            log.info("Connected to %s.", self._server)
            heartbeats = threading.Thread(target=_beat, args=(fleet, gone), daemon=True)
            heartbeats.start()
            waiting = LongPoll(fleet.something_waits, gone)
            waiting.start()
            self._answer_messages(fleet, gone, waiting)
        finally:
            lost = gone.is_set()
            gone.set()
            fleet.close(deactivate=self._stop.is_set())
        if lost and not self._stop.is_set():
            raise NotAccepted("the server does not know this node any more")

    def _answer_messages(self, fleet: Fleet, gone: threading.Event, waiting: LongPoll) -> None:
        def ended() -> bool:
            return self._stop.is_set() or gone.is_set()

        busy_until = time.monotonic() + BUSY_FOR_S
        while not ended():
            try:
                received = self._inbox.oldest() or self._next(fleet)
                if received is not None:
                    self._answer(fleet, received)
                    busy_until = time.monotonic() + BUSY_FOR_S
                self._recovered()
            except (*CUT, OSError) as error:
                # it may be over before the server forgets this node: the connection is kept, not made anew
                self._say(connected=False, trouble=f"{_trouble(error)} ({error})", node_id=fleet.node_id)
                self._back_off(_trouble(error))
                continue
            if received is None and waiting.works:
                waiting.wait(WAITING_POLL_S, ended)
            elif received is None:
                self._wait(BUSY_POLL_S if time.monotonic() < busy_until else IDLE_POLL_S)

    def _recovered(self) -> None:
        if self._failures:
            self._failures = 0
            self._say(connected=True)
            log.info("Connected again to %s.", self._server)

    def _next(self, fleet: Fleet) -> Received | None:
        try:
            received = fleet.receive()
            if received is None:
                return None
            self._inbox.keep(received)
            with suppress(Refused):
                fleet.confirm(received)
        except Refused as error:
            log.warning("A message could not be fetched: %s.", error)
            return None
        except (*CUT, NotAccepted, OSError):
            raise
        except Exception:
            # whatever the server made of it: one message must not end the link
            log.exception("A message could not be fetched; it is left alone.")
            return None
        return received

    def _answer(self, fleet: Fleet, received: Received) -> None:
        try:
            message = received.message()
            if _expired(message):
                log.warning("A message had expired before it could be answered; it is dropped.")
            else:
                fleet.reply(received, answer(message, self._vault))
        except Refused as error:
            log.warning("An answer is not wanted any more: %s.", error)
        except (*CUT, NotAccepted, OSError):
            raise
        except Exception:
            # it would fail again with every start, and what waits behind it would never be answered
            log.exception("A message could not be answered; it is dropped.")
        self._inbox.done(received)

    def _back_off(self, why: str) -> None:
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**self._failures)
        if self._failures == 0:
            log.warning("Not connected: %s. Trying again, for ever.", why)
        self._failures = min(self._failures + 1, 20)
        # jitter, so that a hundred nodes do not come back in the same second
        self._wait(random.uniform(0.5, 1.0) * longest)  # noqa: S311 - no secret

    def _known(self) -> int:
        return read_link(self._folder).node_id or self._node_id

    def _say(self, *, connected: bool, trouble: str = "", node_id: int | None = None) -> None:
        known = self._known() if node_id is None else node_id
        now = datetime.now(UTC).isoformat(timespec="seconds")
        state = LinkState(connected, now, known, self._server, trouble)
        with self._faults.tolerated("Writing down the link's state", "`status` shows the one before."):
            write_atomically(self._folder / "state.json", json.dumps(asdict(state), indent=1).encode())


def _trouble(error: Exception) -> str:
    if isinstance(error, WrongClock):
        return f"{error}; let it take its time by NTP"
    if isinstance(error, CUT):
        return f"the server is away ({error})"
    what = "this machine fails" if isinstance(error, OSError) else "the server does not accept this node's key"
    return f"{what} ({error})"


def _expired(message: Message) -> bool:
    """Return true if the server has stopped waiting for a task: answered now, it would be paid for in vain."""
    if message.metadata.message_type != "train" and not is_evaluation(message.content):
        return False
    return time.time() > message.metadata.created_at + message.metadata.ttl + CLOCK_SKEW_S


def _beat(fleet: Fleet, gone: threading.Event) -> None:
    while not gone.wait(HEARTBEAT_EVERY_S):
        if time.monotonic() < fleet.present_until:
            continue
        try:
            if not fleet.heartbeat():
                gone.set()
        except (*CUT, Refused, OSError):
            continue  # the main loop notices by itself
