"""Shows on loopback that a process belongs to this folder, without showing the folder's secret.

Whoever asks sends a number that was never used before; only who holds the secret can answer it. So a health check tells
this server from another program that took its port.
"""

import hmac
import secrets

IDENTITY_PATH = "/fedvault-identity"
LONGEST_CHALLENGE = 64


def challenge() -> str:
    """Return a question that was never asked before."""
    return secrets.token_hex(LONGEST_CHALLENGE // 2)


def proof(secret: str, challenge: str) -> str:
    """Return the only right answer to a question; it says nothing about the secret, or about other answers."""
    return hmac.new(secret.encode(), f"identity {challenge[:LONGEST_CHALLENGE]}".encode(), "sha256").hexdigest()


def is_proof(secret: str, challenge: str, answer: bytes) -> bool:
    """Return true if an answer shows that its sender holds the secret."""
    return hmac.compare_digest(proof(secret, challenge).encode(), answer)
