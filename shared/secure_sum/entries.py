"""A node's line in the roster: its name, its certificate's public key and its run keys, signed once by the former.

The run keys are made in the vault, which has no certificate key: it gives out `entry_statement`, the link signs it.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.secure_sum.encoding import MOST_NAME_BYTES, PROTOCOL, Kind, Reader, head, joined
from shared.secure_sum.keys import RAW_KEY_BYTES, PublicKeys

MOST_CERTIFICATE_KEY_BYTES, MOST_SIGNATURE_BYTES = 256, 160
MOST_ENTRY_BYTES = 1024


@dataclass(frozen=True)
class Entry:
    """One node of a roster."""

    name: str
    certificate_key: bytes
    """Public key of the node's certificate, as DER; it survives a renewal, unlike the certificate."""
    keys: PublicKeys
    signature: bytes
    """By the certificate's key, over `entry_statement`."""

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the certificate's public key: what an operator compares and pins."""
        return hashlib.sha256(self.certificate_key).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the entry as every side writes it."""
        fields = (self.name, self.certificate_key, self.keys.exchange, self.keys.signing, self.signature)
        return head(Kind.ENTRY) + joined(*fields)

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Self:
        """Read an entry of anybody's; whether it is signed is checked with the roster.

        Raises:
            SecureSumError: these are other bytes.
        """
        reader = Reader(encoded, Kind.ENTRY, most_bytes=MOST_ENTRY_BYTES)
        name, certificate_key = reader.text(), reader.field(MOST_CERTIFICATE_KEY_BYTES)
        keys = PublicKeys(reader.fixed(RAW_KEY_BYTES), reader.fixed(RAW_KEY_BYTES))
        entry = cls(name, certificate_key, keys, reader.field(MOST_SIGNATURE_BYTES))
        reader.end()
        return entry


def entry_statement(run: str, study_sha256: str, name: str, certificate_key: bytes, keys: PublicKeys) -> bytes:
    """Return what a node's certificate key signs, once a run."""
    return joined(PROTOCOL, "entry", run, study_sha256, name, certificate_key, keys.exchange, keys.signing)


def certificate_key_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the one encoding of a certificate's public key that a roster takes."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def sign_entry(
    run: str, study_sha256: str, name: str, keys: PublicKeys, certificate_key: ec.EllipticCurvePrivateKey
) -> Entry:
    """Make a node's own entry, with its certificate's key at hand."""
    public = certificate_key_bytes(certificate_key.public_key())
    statement = entry_statement(run, study_sha256, name, public, keys)
    return Entry(name, public, keys, certificate_key.sign(statement, ec.ECDSA(hashes.SHA384())))


def is_signed(entry: Entry, run: str, study_sha256: str) -> bool:
    """Return true if an entry is signed by its certificate's key for this run and study.

    Guarantee: a certificate key has one encoding, so that two entries with one key are seen to share it.
    """
    if not 0 < len(entry.name.encode()) <= MOST_NAME_BYTES:
        return False
    try:
        key = serialization.load_der_public_key(entry.certificate_key)
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            return False
        if certificate_key_bytes(key) != entry.certificate_key:
            return False
        statement = entry_statement(run, study_sha256, entry.name, entry.certificate_key, entry.keys)
        key.verify(entry.signature, statement, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
