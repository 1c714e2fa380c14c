"""The one error of this room: a public code with its sentence, which may be sent to the other side."""

from enum import StrEnum

from shared.errors import PeerError


class Refusal(StrEnum):
    """Why something was refused. Each follows from public facts alone, so each may be sent."""

    MALFORMED = "malformed"
    VERSION = "version"
    NUMBERS = "numbers"
    SMALL_COHORT = "small_cohort"
    TOO_MANY_COLLUDERS = "too_many_colluders"
    ROSTER_OTHER_RUN = "roster_other_run"
    ROSTER_OTHER_NUMBERS = "roster_other_numbers"
    ROSTER_WITHOUT_ME = "roster_without_me"
    ROSTER_CHANGED_ME = "roster_changed_me"
    ROSTER_SIGNATURE = "roster_signature"
    ROSTER_DUPLICATE = "roster_duplicate"
    ROSTER_KEY = "roster_key"
    ROSTER_STRANGER = "roster_stranger"
    SECOND_ROSTER = "second_roster"
    OTHER_CONTEXT = "other_context"
    SECOND_VECTOR = "second_vector"
    NO_VECTOR = "no_vector"
    SURVIVORS_WITHOUT_ME = "survivors_without_me"
    SURVIVORS_CHANGED_ME = "survivors_changed_me"
    SURVIVORS_STRANGER = "survivors_stranger"
    SURVIVORS_TOO_FEW = "survivors_too_few"
    SECOND_SURVIVORS = "second_survivors"
    NOT_SIGNED = "not_signed"
    SIGNATURE = "signature"
    SIGNATURES_TOO_FEW = "signatures_too_few"
    STRANGER = "stranger"
    ANSWERED_TWICE = "answered_twice"
    STATE = "state"
    BOX = "box"
    SHARE = "share"
    COMMITMENT = "commitment"


SENTENCES = {
    Refusal.MALFORMED: "Expected a message of the secure sum, got other bytes.",
    Refusal.VERSION: "Expected a message of this version of the secure sum, got one of another.",
    Refusal.NUMBERS: "Expected nodes, threshold and colluders that fit together, got others.",
    Refusal.SMALL_COHORT: "Expected as many nodes as this node's policy and the study's quorum ask for, got fewer.",
    Refusal.TOO_MANY_COLLUDERS: "Expected as many colluders as this node has to fear, or more, got fewer.",
    Refusal.ROSTER_OTHER_RUN: "Expected a roster of this run and study, got one of another.",
    Refusal.ROSTER_OTHER_NUMBERS: "Expected the numbers that follow from the study, got a roster with others.",
    Refusal.ROSTER_WITHOUT_ME: "Expected a roster that names this node, got one without it.",
    Refusal.ROSTER_CHANGED_ME: "Expected this node's own entry in the roster, got a changed one.",
    Refusal.ROSTER_SIGNATURE: "Expected entries signed by their certificate's key, got one that is not.",
    Refusal.ROSTER_DUPLICATE: "Expected entries with names and keys of their own, got two that share one.",
    Refusal.ROSTER_KEY: "Expected keys that are neither empty nor copies, got one that is.",
    Refusal.ROSTER_STRANGER: "Expected nodes that this federation vouches for, got a stranger.",
    Refusal.SECOND_ROSTER: "Expected the roster that this node took first, got another.",
    Refusal.OTHER_CONTEXT: "Expected a message of this run, round, adapter, roster and purpose, got another.",
    Refusal.SECOND_VECTOR: "Expected one vector a round and purpose, got a second.",
    Refusal.NO_VECTOR: "Expected a question about a vector that this node sent, got one about none.",
    Refusal.SURVIVORS_WITHOUT_ME: "Expected survivors with this node among them, got others.",
    Refusal.SURVIVORS_CHANGED_ME: "Expected survivors with what this node sent, got something else under its name.",
    Refusal.SURVIVORS_STRANGER: "Expected survivors from the roster, got a stranger.",
    Refusal.SURVIVORS_TOO_FEW: "Expected at least as many survivors as the threshold, got fewer.",
    Refusal.SECOND_SURVIVORS: "Expected the survivors that this node signed, got others.",
    Refusal.NOT_SIGNED: "Expected survivors that this node has signed, got a round without.",
    Refusal.SIGNATURE: "Expected a signature on these survivors, got another.",
    Refusal.SIGNATURES_TOO_FEW: "Expected the signatures of as many nodes as the threshold, got fewer.",
    Refusal.STRANGER: "Expected a node that takes part here, got another.",
    Refusal.ANSWERED_TWICE: "Expected one answer a node, got a second that differs.",
    Refusal.STATE: "Expected a round in another state.",
    Refusal.BOX: "Expected a box that opens to the share that was announced, got another.",
    Refusal.SHARE: "Expected the share that its dealer announced, got another.",
    Refusal.COMMITMENT: "Expected shares of the mask that was committed to, got others.",
}
"""What each code means, without a secret in it."""


class SecureSumError(PeerError):
    """The other side, or a roster, breaks a rule of the secure sum; `code` says which, and may be sent."""

    def __init__(self, code: Refusal, detail: str = "") -> None:
        super().__init__(f"{SENTENCES[code]} {detail}".rstrip())
        self.code, self.detail = code, detail

    def __reduce__(self) -> tuple[object, ...]:
        return (SecureSumError, (self.code, self.detail))
