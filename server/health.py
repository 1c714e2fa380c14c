"""Tells whether it is this server's own processes that answer at its ports, or nobody, or another program.

Guarantee: another program at a port of this server is never taken for it.
"""

import socket
import ssl
from enum import StrEnum
from http.client import HTTPConnection, HTTPException

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from server.certificate_authority import trusted_authorities
from server.identity import IDENTITY_PATH, challenge, is_proof
from server.settings import Home

LOOPBACK, ANSWERS_WITHIN_S = "127.0.0.1", 5.0
EVERYWHERE = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - what a setting may say
HTTP_OK = 200


class Answer(StrEnum):
    """Who answers at a port."""

    OURS = "ours"
    NOBODY = "nobody"
    ANOTHER = "another"


def answers(home: Home, *, within_s: float = ANSWERS_WITHIN_S) -> dict[str, Answer]:
    """Return who answers where SuperLink and gateway should."""
    settings = home.settings()
    return {
        "superlink": superlink_answer(settings.superlink_port, home.secret(), within_s=within_s),
        "gateway": gateway_answer(
            (EVERYWHERE.get(settings.listen, settings.listen), settings.port),
            trusted_authorities(home.keys),
            within_s=within_s,
        ),
    }


def superlink_answer(port: int, secret: str, *, within_s: float = ANSWERS_WITHIN_S) -> Answer:
    """Ask who listens on a port of loopback to show that it holds the secret, which it is not told."""
    asked, connection = challenge(), HTTPConnection(LOOPBACK, port, timeout=within_s)
    try:
        connection.request("GET", f"{IDENTITY_PATH}?{asked}")
        response = connection.getresponse()
        answer = response.read(1024)
    except HTTPException:
        return Answer.ANOTHER  # it speaks, but not HTTP
    except OSError:
        return Answer.NOBODY
    finally:
        connection.close()
    ours = response.status == HTTP_OK and is_proof(secret, asked, answer)
    return Answer.OURS if ours else Answer.ANOTHER


def gateway_answer(address: tuple[str, int], authorities: str, *, within_s: float = ANSWERS_WITHIN_S) -> Answer:
    """Ask who listens at an address for a certificate, and look whether this federation signed it.

    One that has ended is as good as any: that it should be renewed is another question.

    Args:
        address: host and port.
        authorities: certificates of the federation's authorities as PEM.
        within_s: time for the answer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(address, timeout=within_s) as plain,
            context.wrap_socket(plain) as connection,
        ):
            shown = connection.getpeercert(binary_form=True)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return Answer.NOBODY  # it hangs up at once, as a gateway does that has all the connections it takes
    except ssl.SSLError:
        return Answer.ANOTHER
    except OSError:
        return Answer.NOBODY
    return Answer.OURS if shown and _signed(shown, authorities) else Answer.ANOTHER


def _signed(shown: bytes, authorities: str) -> bool:
    certificate = x509.load_der_x509_certificate(shown)
    for signer in x509.load_pem_x509_certificates(authorities.encode()):
        try:
            certificate.verify_directly_issued_by(signer)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False
