"""Write the two further questions of a secure sum as Flower's records, and read them back.

What they hold is the secure sum's own: bytes that the protocol carries as they are. A sender may put anything into a
record: what cannot be read is refused. Questions and answers about a round travel in the oldest version that has them,
so that a node of that age understands them, whatever else the other side speaks.
"""

from typing import Any

from flwr.app import ConfigRecord, RecordDict

from shared.errors import PeerError
from shared.protocol.flower_records import Values, bytes_under, config_of, round_of, status_of, text_under
from shared.protocol.messages import LEGS, SUMS_OF, Leg, LegReply, LegTask, SumOf
from shared.protocol.versions import SAYS_SECURE_SUM, SAYS_SUMMED_EVALUATION, SPOKEN, Versions

LEG = "leg"
KNOWING = Versions(SAYS_SECURE_SUM, SPOKEN.newest)
LARGEST_CONTENT_BYTES = 2**20
"""Far more than a hundred nodes need: 12 KiB of signatures and 20 KiB of boxes."""


def is_leg(records: RecordDict) -> bool:
    """Return true if a message is a further question of a secure sum."""
    return LEG in records


def encode_leg(task: LegTask) -> RecordDict:
    """Turn a question of a secure sum into Flower records."""
    of_round = task.purpose == "training"
    config: dict[str, Any] = {
        "protocol-version": SAYS_SECURE_SUM if of_round else SAYS_SUMMED_EVALUATION,
        **({} if of_round else {"purpose": task.purpose}),
        "leg": task.leg,
        "study-sha256": task.study_sha256,
        "study-run": task.study_run,
        "round": task.round,
        "content": task.content,
    }
    return RecordDict({LEG: ConfigRecord(config)})


def decode_leg(records: RecordDict) -> LegTask:
    """Read a question of a secure sum.

    Raises:
        VersionError: it is in a version that this side does not speak.
        PeerError: a record is missing, mistyped or too large.
    """
    config = config_of(records, LEG, KNOWING)
    leg, number, content = _leg(config), round_of(config), _content(config)
    study_sha256, run = text_under(config, "study-sha256"), text_under(config, "study-run")
    return LegTask(leg, study_sha256, run, number, content, _purpose(config))


def encode_leg_reply(reply: LegReply) -> RecordDict:
    """Turn a node's answer to a question of a secure sum into Flower records."""
    config: dict[str, Any] = {
        "protocol-version": SAYS_SECURE_SUM,
        "leg": reply.leg,
        "study-run": reply.study_run,
        "round": reply.round,
        "status": int(reply.status),
        "content": reply.content,
    }
    return RecordDict({LEG: ConfigRecord(config)})


def decode_leg_reply(records: RecordDict) -> LegReply:
    """Read a node's answer to a question of a secure sum.

    Raises:
        VersionError: it is in a version that this side does not speak.
        PeerError: a record is missing, mistyped or too large.
    """
    config = config_of(records, LEG, KNOWING)
    leg, run, number = _leg(config), text_under(config, "study-run"), round_of(config)
    return LegReply(leg, run, number, status_of(config), _content(config))


def _leg(config: Values) -> Leg:
    named = text_under(config, "leg")
    for leg in LEGS:
        if named == leg:
            return leg
    raise PeerError(f"Expected a question among {', '.join(LEGS)}, got {named!r}.")


def _purpose(config: Values) -> SumOf:
    named = text_under(config, "purpose") if "purpose" in config else "training"
    for purpose in SUMS_OF:
        if named == purpose:
            return purpose
    raise PeerError(f"Expected a sum of {' or '.join(SUMS_OF)}, got {named!r}.")


def _content(config: Values) -> bytes:
    content = bytes_under(config, "content")
    if len(content) > LARGEST_CONTENT_BYTES:
        raise PeerError(f"Expected at most {LARGEST_CONTENT_BYTES} bytes, got {len(content)}.")
    return content
