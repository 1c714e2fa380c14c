"""This node's line in a run's roster: the vault makes the keys, the certificate's key signs them here."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric import ec

from shared.protocol.messages import StudyOffer
from shared.secure_sum.entries import certificate_key_bytes, sign_entry
from shared.secure_sum.keys import PublicKeys
from shared.study.declaration import recorded


@dataclass(frozen=True)
class RosterSigner:
    """Signs with the key of a node's certificate."""

    name: str
    """Of the node, as it is enrolled."""
    key: ec.EllipticCurvePrivateKey

    @cached_property
    def certificate_key(self) -> bytes:
        """The public half, as a roster has it."""
        return certificate_key_bytes(self.key.public_key())

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the public half: what other operators pin."""
        return hashlib.sha256(self.certificate_key).hexdigest()

    def entry(self, offer: StudyOffer, keys: PublicKeys) -> bytes:
        """Return this node's signed entry for the run and the study of an offer.

        Args:
            offer: that the vault has approved.
            keys: that the vault made for its run.

        Raises:
            SettingsError: the offer holds no study.
        """
        study_sha256 = recorded(json.loads(offer.study_json), where="The offer").sha256
        return sign_entry(offer.study_run, study_sha256, self.name, keys, self.key).to_bytes()
