"""Studies that the server showed this node, waiting for a person, or turned down by one."""

import hashlib
import json
import math
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.errors import DataError, PeerError, PolicyRefusal, SettingsError
from shared.files import private_folder, write_atomically
from shared.protocol.messages import Peer, StudyOffer
from shared.study.declaration import Study, recorded

LARGEST_STUDY_BYTES = 256 * 1024
MOST_OFFERS = 200
MOST_PEERS = 1000
"""Named to a node; at most a hundred of them are in the roster."""
HASH = re.compile(r"[0-9a-fA-F]{8,64}")
"""A study's hash or its beginning, as somebody was told it beforehand; no run is called so."""
CLOCK_SKEW_S = 600.0
STALE_S = 24 * 3600.0
"""An undecided study is shown again every minute or so; one that was not for a day is not on offer any more."""


@dataclass(frozen=True)
class Offered:
    """One study run as it was offered."""

    run: str
    study: Study
    rejected: bool
    peers: tuple[Peer, ...] = ()
    """Who may take part in its secure sum, as the server last named them."""


class Offers:
    """The offers of one node, one small file each; its time says when it was last shown.

    What a person turned down stays, so that it stays turned down. The others are at most `MOST_OFFERS`: beyond that,
    those that the server shows no more make room, the longest forgotten first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def receive(self, offer: StudyOffer) -> Offered:
        """Keep an offer; the same run again changes nothing but when it was last shown, and who are its peers.

        Raises:
            PeerError: it is no study, too large, another study under a known run's name, or one offer too many.
            DataError: its file is damaged.
        """
        if len(offer.study_json.encode()) > LARGEST_STUDY_BYTES:
            raise PeerError(f"Expected a study of at most {LARGEST_STUDY_BYTES} bytes, got a longer one.")
        path = self._of(offer.study_run)
        if path.exists():
            known = self._read(path)
            if known.study.canonical_json() != _study(offer).canonical_json():
                raise PeerError(f"Expected the study that {offer.study_run!r} was offered with, got another one.")
            if offer.peers != known.peers:
                known = replace(known, peers=_shown(offer.peers))
                self._write(known)
            os.utime(path)
            return known
        named = 1 <= len(offer.study_run) <= 100 and offer.study_run.isprintable()
        named = named and not HASH.fullmatch(offer.study_run)
        if not named:
            raise PeerError("Expected a run whose name is printable and no hash, got another.")
        self._make_room()
        offered = Offered(offer.study_run, _study(offer), rejected=False, peers=_shown(offer.peers))
        self._write(offered)
        return offered

    def all(self) -> list[Offered]:
        """Return every offer that can be read, by run."""
        offers = list[Offered]()
        for path in self._files():
            with suppress(DataError):
                offers.append(self._read(path))
        return sorted(offers, key=lambda offered: offered.run)

    def damaged(self) -> list[DataError]:
        """Return what is wrong with each offer that cannot be read."""
        errors = list[DataError]()
        for path in self._files():
            try:
                self._read(path)
            except DataError as error:
                errors.append(error)
        return errors

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))

    def find(self, run: str) -> Offered:
        """Return one offer, by its run's name, its study's name or hash, or an unambiguous beginning of run or hash.

        Guarantee: what reads as a hash finds the study that has it, never one whose run or name was chosen to look so.

        Raises:
            SettingsError: there is none, or more than one.
        """
        offers = self.all()
        if HASH.fullmatch(run):  # names are the server's choice
            matching = [o for o in offers if o.study.sha256.startswith(run.lower())]
        else:
            matching = (
                [o for o in offers if o.run == run]
                or [o for o in offers if o.run.startswith(run)]
                or [o for o in offers if o.study.study.name == run]
            )
        if len(matching) != 1:
            names = ", ".join(offered.run for offered in offers) or "none"
            raise SettingsError(f"Expected the run of one study on offer ({names}), got {run!r}.")
        return matching[0]

    def reject(self, run: str) -> Offered:
        """Turn an offer down; it stays on file so that the server hears of it.

        Raises:
            SettingsError: no such offer.
        """
        offered = self.find(run)
        rejected = replace(offered, rejected=True)
        self._write(rejected)
        return rejected

    def reopen(self, run: str) -> None:
        """Take back that an offer was turned down; one that is not on file changes nothing."""
        path = self._of(run)
        if path.exists() and (offered := self._read(path)).rejected:
            self._write(replace(offered, rejected=False))

    def check_open(self, run: str) -> None:
        """Refuse a run that was turned down.

        Raises:
            PolicyRefusal: it was.
        """
        path = self._of(run)
        if path.exists() and self._read(path).rejected:
            raise PolicyRefusal(f"Expected a study that is open, {run!r} was rejected.", hint="Ask for another run.")

    def _make_room(self) -> None:
        waiting = [self._of(offered.run) for offered in self.all() if not offered.rejected]
        if len(waiting) < MOST_OFFERS:
            return
        oldest = max(waiting, key=_age_s)
        if _age_s(oldest) < STALE_S:
            raise PeerError(f"Expected at most {MOST_OFFERS} studies on offer, got one more.")
        oldest.unlink()

    def _write(self, offered: Offered) -> None:
        private_folder(self._folder)
        study_json = offered.study.canonical_json()
        plain: dict[str, Any] = {"study_run": offered.run, "study_json": study_json, "rejected": offered.rejected}
        if offered.peers:
            plain["peers"] = [[peer.name, peer.key_sha256] for peer in offered.peers]
        write_atomically(self._of(offered.run), json.dumps(plain, indent=1).encode())

    def _read(self, path: Path) -> Offered:
        try:
            plain = json.loads(path.read_text())
            offer = StudyOffer(str(plain["study_run"]), plain["study_json"])
            peers = tuple(Peer(str(name), str(key_sha256)) for name, key_sha256 in plain.get("peers", ()))
            return Offered(offer.study_run, _study(offer), bool(plain["rejected"]), peers)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, PeerError):
            raise DataError(
                f"Expected a study on offer in {path}, got a file that cannot be read.",
                hint="Delete it: the server shows the study again. What you said to it stands in the ledger.",
            ) from None

    def _of(self, run: str) -> Path:
        return self._folder / f"{hashlib.sha256(run.encode()).hexdigest()[:32]}.json"


def _shown(peers: tuple[Peer, ...]) -> tuple[Peer, ...]:
    """Return the peers that an operator can be shown.

    Raises:
        PeerError: they are too many, or bear names that cannot be printed.
    """
    if len(peers) > MOST_PEERS or not all(0 < len(peer.name) <= 255 and peer.name.isprintable() for peer in peers):
        raise PeerError(f"Expected at most {MOST_PEERS} peers with names that can be printed, got others.")
    return peers


def _age_s(path: Path) -> float:
    """Return how long ago an offer was last shown; what a clock that ran ahead has dated must not stay until then."""
    age_s = time.time() - path.stat().st_mtime
    return age_s if age_s > -CLOCK_SKEW_S else math.inf


def _study(offer: StudyOffer) -> Study:
    try:
        return recorded(json.loads(offer.study_json), where="The offer")
    except (ValueError, RecursionError, SettingsError) as error:
        raise PeerError(f"Expected a study, got something else: {error}") from None
