"""A request is a node's own if its key signed the time, lately."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import sign_message

from server.certificate_authority import public_pem
from server.mailbox.signatures import is_signed

KEY, OTHER = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def headers(
    key: ec.EllipticCurvePrivateKey = KEY, shown: ec.EllipticCurvePrivateKey = KEY, ago_s: float = 0.0
) -> dict[str, str]:
    signed_at = (NOW - timedelta(seconds=ago_s)).isoformat()
    return {
        "flwr-public-key": b64encode(public_pem(shown.public_key()).encode()).decode(),
        "flwr-timestamp": signed_at,
        "flwr-signature": b64encode(sign_message(key, signed_at.encode())).decode(),
    }


def signed(given: dict[str, str]) -> bool:
    return is_signed(given, public_pem(KEY.public_key()), now=NOW)


def test_the_nodes_own_signature_of_about_now_is_accepted() -> None:
    assert [signed(headers(ago_s=ago)) for ago in (-4.0, 0.0, 304.0)] == [True] * 3


@pytest.mark.parametrize(
    "given",
    {
        "another key's": headers(OTHER),
        "another key's, shown": headers(OTHER, OTHER),
        "of the future": headers(ago_s=-6.0),
        "old": headers(ago_s=306.0),
        "of another time": headers() | {"flwr-timestamp": (NOW + timedelta(seconds=1)).isoformat()},
        "a time without a zone": headers() | {"flwr-timestamp": "2026-11-28T00:00:00"},
        "no time": headers() | {"flwr-timestamp": "soon\u00e9"},
        "no base64": headers() | {"flwr-signature": "?"},
        "empty": headers() | {"flwr-signature": ""},
        "nothing": {},
    }.items(),
    ids=lambda case: case[0],
)
def test_no_other_is(given: tuple[str, dict[str, str]]) -> None:
    assert not signed(given[1])
