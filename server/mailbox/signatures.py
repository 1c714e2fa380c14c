"""Checks that a request was signed by a node's key, and lately, as Flower's own SuperLink does."""

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

REMEMBERED_KEYS = 1024


def is_signed(headers: Mapping[str, str], public_key: str, *, now: datetime) -> bool:
    """Return whether the headers bear this key (PEM), and its signature of a time that is about now."""
    try:
        shown = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
        signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
        signed_at = headers[TIMESTAMP_HEADER]
        age_s = (now - datetime.fromisoformat(signed_at)).total_seconds()
        return (
            shown.strip() == public_key.strip().encode()
            and -SYSTEM_TIME_TOLERANCE < age_s < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
            and verify_signature(_loaded(public_key), signed_at.encode("ascii"), signature)
        )
    except (KeyError, ValueError, TypeError):
        return False


@lru_cache(maxsize=REMEMBERED_KEYS)
def _loaded(public_key: str) -> ec.EllipticCurvePublicKey:
    return bytes_to_public_key(public_key.encode())
