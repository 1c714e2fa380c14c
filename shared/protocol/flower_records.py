"""Write messages as Flower's records, and read them back.

Flower stores and asks for every record, array and chunk by itself, and each costs a round trip: so a vector travels as
bytes inside the record that describes it. What differs from node to node, the server's copy of its ledger position,
stays in a record of its own, so that the server keeps the adapter once. A sender may put anything into a record:
what cannot be read is refused.

Flower keeps what two senders call by the same hash once, and refuses the second one if they differ on what is in it. So
every record bears a salt: nobody can say what is in another's record before it is sent.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from shared.errors import PeerError, VersionError
from shared.protocol.messages import (
    NO_MAC,
    PROTOCOL_VERSION,
    LedgerPosition,
    OfferReply,
    Peer,
    Status,
    StudyOffer,
    TrainReply,
    TrainTask,
)
from shared.protocol.update_encoding import SENT, Wire, pack, unpack
from shared.protocol.versions import (
    BEFORE_NEGOTIATION,
    ENVELOPE,
    SAYS_ADAPTER,
    SAYS_MAC,
    SAYS_SECURE_SUM,
    SAYS_WIRE,
    SPOKEN,
    Versions,
)

LARGEST_ROUND = 2**31 - 1
LARGEST_ENTRY_BYTES = 4 * 2**10
SALT, SALT_BYTES = "salt", 16
NUMBER_FORM, HASH_FORM = re.compile(r"[0-9]{12}"), re.compile(r"[0-9a-f]{64}")
Values = Mapping[str, object]
"""Contents of one of Flower's records. A sender may put anything into it."""


@lru_cache(maxsize=1)
def _sha256(packed: bytes) -> str:
    """Hash an adapter's bytes, and remember the last result: simulated nodes in one process receive the same bytes."""
    return hashlib.sha256(packed).hexdigest()


def add_salt(records: RecordDict, salt: str) -> None:
    """Make the hashes of records such that nobody knows them beforehand; a record that has a salt keeps it.

    Args:
        records: about to be sent.
        salt: of `SALT_BYTES` in hexadecimal, which no other member can guess.
    """
    for record in records.values():
        if isinstance(record, ConfigRecord):
            record.setdefault(SALT, salt)


def encode_task(task: TrainTask) -> RecordDict:
    """Turn a task into Flower records.

    Raises:
        VersionError: its version of the protocol cannot name the encoding that it asks for, or knows no secure sum.
    """
    if task.roster and task.version < SAYS_SECURE_SUM:
        raise VersionError(f"Expected protocol version {SAYS_SECURE_SUM} for a secure sum, got {task.version}.")
    if task.wire != "float32" and task.version < SAYS_WIRE:
        raise VersionError(f"Expected protocol version {SAYS_WIRE} for {task.wire} updates, got {task.version}.")
    config: dict[str, Any] = {
        "protocol-version": task.version,
        "study-sha256": task.study_sha256,
        "study-run": task.study_run,
        "round": task.round,
        "adapter-sha256": task.adapter_sha256,
        "adapter": pack(task.adapter),
        **({"wire": task.wire} if task.version >= SAYS_WIRE else {}),
    }
    records = RecordDict({"task": ConfigRecord(config), "echo": server_copy_record(task.server_copy, task.version)})
    if task.roster:  # a record of its own: it is the same in every round, so the server keeps it once
        roster: dict[str, Any] = {"protocol-version": task.version, "roster": task.roster}
        records["roster"] = ConfigRecord(roster)
    return records


def with_server_copy(records: RecordDict, server_copy: LedgerPosition) -> RecordDict:
    """Address an encoded task to a node with this ledger position; the adapter is shared, not copied."""
    return RecordDict({**records, "echo": server_copy_record(server_copy, _version(config_of(records, "task")))})


def encode_offer(offer: StudyOffer) -> RecordDict:
    """Turn an offer into Flower records."""
    config: dict[str, Any] = {
        **_envelope(offer.versions),
        "study-run": offer.study_run,
        "study-json": offer.study_json,
    }
    if offer.peers:
        config["peers"] = json.dumps([[peer.name, peer.key_sha256] for peer in offer.peers])
    return RecordDict({"offer": ConfigRecord(config)})


def decode_offer(records: RecordDict) -> StudyOffer:
    """Read an offer.

    Raises:
        VersionError: it is not in the envelope that every version shares.
        PeerError: a record is missing or mistyped.
    """
    config = config_of(records, "offer", ENVELOPE)
    return StudyOffer(
        text_under(config, "study-run"), text_under(config, "study-json"), _versions(config), _peers(config)
    )


def encode_offer_reply(reply: OfferReply) -> RecordDict:
    """Turn a node's answer to an offer into Flower records."""
    config: dict[str, Any] = {
        **_envelope(reply.versions),
        "study-run": reply.study_run,
        "status": int(reply.status),
        "declared-size": f"{reply.declared_size:012d}",  # as text: every stance has one length
    }
    if reply.entry:
        config["entry"] = reply.entry
    return RecordDict({"stance": ConfigRecord(config)})


def decode_offer_reply(records: RecordDict) -> OfferReply:
    """Read a node's answer to an offer.

    Raises:
        VersionError: it is not in the envelope that every version shares, or the node reports that the offer was not.
        PeerError: a record is missing or mistyped.
    """
    if "stance" not in records and "reply" in records and decode_reply(records).status is Status.REFUSED_VERSION:
        raise VersionError("Expected a stance, got a refusal of the protocol's version.")
    config = config_of(records, "stance", ENVELOPE)
    entry = bytes_under(config, "entry") if "entry" in config else b""
    if len(entry) > LARGEST_ENTRY_BYTES:
        raise PeerError(f"Expected an entry of at most {LARGEST_ENTRY_BYTES} bytes, got {len(entry)}.")
    size = text_under(config, "declared-size") if "declared-size" in config else "0" * 12  # an older node's
    if not NUMBER_FORM.fullmatch(size):
        raise PeerError("Expected twelve digits under 'declared-size', got another text.")
    return OfferReply(text_under(config, "study-run"), status_of(config), _versions(config), int(size), entry)


def decode_task(records: RecordDict) -> TrainTask:
    """Read a task.

    Raises:
        VersionError: it is in a version that this side does not speak.
        PeerError: a record is missing or mistyped, the round is impossible, or the adapter does not match its digest.
    """
    config = config_of(records, "task")
    packed = bytes_under(config, "adapter")
    adapter = unpack(packed, "float32")[0].copy()
    study_sha256, study_run, version = (
        text_under(config, "study-sha256"),
        text_under(config, "study-run"),
        _version(config),
    )
    server_copy = read_position(config_of(records, "echo"), version)
    roster = bytes_under(config_of(records, "roster"), "roster") if "roster" in records else b""
    wire = _wire(config, version)
    task = TrainTask(study_sha256, study_run, round_of(config), adapter, server_copy, version, wire, roster)
    if task.round == 0:
        raise PeerError("Expected rounds to count from 1, got round=0.")
    if _sha256(packed) != text_under(config, "adapter-sha256"):
        raise PeerError("Expected an adapter that matches its digest, got other bytes.")
    task.__dict__["adapter_sha256"] = _sha256(packed)  # these bytes are the adapter's, so nobody computes it again
    return task


def encode_reply(reply: TrainReply, *, version: int = PROTOCOL_VERSION) -> RecordDict:
    """Turn a reply into Flower records, in its task's version of the protocol and with a code that this version has."""
    known = version >= SAYS_ADAPTER or reply.status is not Status.REFUSED_ADAPTER
    config: dict[str, Any] = {
        "protocol-version": version,
        "study-sha256": reply.study_sha256,
        "study-run": reply.study_run,
        "round": reply.round,
        "base-sha256": reply.base_sha256,
        "status": int(reply.status if known else Status.REFUSED_STUDY),
        **position_fields(reply.ledger, version),
        "update": reply.masked or pack(reply.update, reply.encoding),
    }
    return RecordDict({"reply": ConfigRecord(config)})


def decode_reply(records: RecordDict, wire: Wire = "float32", *, masked: bool = False) -> TrainReply:
    """Read a reply whose update has the encoding that its task asked for.

    Args:
        records: as they came.
        wire: of the task.
        masked: its task had a roster: what stands in place of the update is for the secure sum's session.

    Raises:
        VersionError: it is in a version that this side does not speak.
        EncodingError: the update is not in this encoding.
        PeerError: a record is missing or mistyped.
    """
    config = config_of(records, "reply")
    packed = bytes_under(config, "update")
    update, encoding = unpack(b"" if masked else packed, wire)
    return TrainReply(
        text_under(config, "study-sha256"),
        text_under(config, "study-run"),
        round_of(config),
        text_under(config, "base-sha256"),
        status_of(config),
        update,
        read_position(config, _version(config)),
        encoding,
        packed if masked else b"",
    )


def bytes_under(config: Values, key: str) -> bytes:
    """Return the bytes under a key, or refuse the record."""
    packed = config.get(key)
    if not isinstance(packed, bytes):
        raise PeerError(f"Expected bytes under {key!r}, got {type(packed).__name__}.")
    return packed


def _wire(config: Values, version: int) -> Wire:
    if version < SAYS_WIRE:
        return "float32"
    wire = text_under(config, "wire")
    for known in SENT:
        if wire == known:
            return known
    raise PeerError(f"Expected an encoding among {', '.join(SENT)}, got {wire!r}.")


def _peers(config: Values) -> tuple[Peer, ...]:
    if "peers" not in config:
        return ()
    try:
        pairs = json.loads(text_under(config, "peers"))
        peers = tuple(Peer(name, key) for name, key in pairs)
        readable = all(isinstance(peer.name, str) and HASH_FORM.fullmatch(peer.key_sha256) for peer in peers)
    except (ValueError, TypeError, RecursionError):
        readable = False
    if not readable:
        raise PeerError("Expected peers, each with a name and a key's fingerprint, got something else.")
    return peers


def _envelope(versions: Versions) -> dict[str, Any]:
    return {
        "protocol-version": ENVELOPE.newest,
        "oldest-version": versions.oldest,
        "newest-version": versions.newest,
    }


def _versions(config: Values) -> Versions:
    if "oldest-version" not in config:
        return BEFORE_NEGOTIATION
    return Versions(number_under(config, "oldest-version"), number_under(config, "newest-version"))


def server_copy_record(position: LedgerPosition, version: int) -> ConfigRecord:
    """Return the record that tells a node its ledger's position as the server last received it."""
    config: dict[str, Any] = {"protocol-version": version, **position_fields(position, version)}
    return ConfigRecord(config)


def position_fields(position: LedgerPosition, version: int) -> dict[str, Any]:
    """Return a ledger's position as values of a record."""
    # a number as text of one width: every reply of a study has the same length
    plain = {"height": f"{position.height:012d}", "head": position.head}
    return plain | {"mac": position.mac} if version >= SAYS_MAC else plain


def read_position(config: Values, version: int) -> LedgerPosition:
    """Return the position of a ledger that a record bears, or refuse it."""
    height, head = text_under(config, "height"), text_under(config, "head")
    mac = text_under(config, "mac") if version >= SAYS_MAC else NO_MAC
    if not (NUMBER_FORM.fullmatch(height) and HASH_FORM.fullmatch(head) and HASH_FORM.fullmatch(mac)):
        raise PeerError("Expected the height, head hash and MAC of a ledger, got something else.")
    return LedgerPosition(int(height), head, mac)


def status_of(config: Values) -> Status:
    """Return the status that a record bears, or refuse it."""
    status = number_under(config, "status")
    try:
        return Status(status)
    except ValueError:
        raise PeerError(f"Expected a known status, got status={status}.") from None


def config_of(records: RecordDict, name: str, versions: Versions = SPOKEN) -> Values:
    """Return the values of a record by its name, or refuse it: absent, no record of values, or of another version."""
    record = records.get(name)
    if not isinstance(record, ConfigRecord):
        raise PeerError(f"Expected a config record {name!r}, got none.")
    values = dict(record.items())  # Flower's own look-ups take as long each
    version = _version(values)
    if not versions.oldest <= version <= versions.newest:
        raise VersionError(
            f"Expected protocol version {versions.oldest} to {versions.newest}, got {version}. Update the older side."
        )
    return values


def _version(config: Values) -> int:
    return number_under(config, "protocol-version")


def text_under(config: Values, key: str) -> str:
    """Return the text under a key, or refuse the record."""
    value = config.get(key)
    if not isinstance(value, str):
        raise PeerError(f"Expected text under {key!r}, got {type(value).__name__}.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise PeerError(f"Expected text under {key!r}, got half of a character.")
    return value


def round_of(config: Values) -> int:
    """Return the round that a record bears, or refuse it."""
    number = number_under(config, "round")
    if not 0 <= number <= LARGEST_ROUND:
        raise PeerError(f"Expected a round up to {LARGEST_ROUND}, got round={number}.")
    return number


def number_under(config: Values, key: str) -> int:
    """Return the whole number under a key, or refuse the record."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise PeerError(f"Expected a whole number under {key!r}, got {type(value).__name__}.")
    return value
