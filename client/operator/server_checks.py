"""Checks of the way to the server: certificate, TLS, clock, key; and, from the link's container, to the vault."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import httpx

from client.link.fleet import (
    CUT,
    NotAccepted,
    Refused,
    WrongClock,
    clock_of,
    clocks_in_words,
    through,
    tls_context,
)
from client.link.loop import read_link
from client.link.membership import INVITED_BACK, Membership, membership
from client.link.vault_client import VaultClient
from client.operator.finding import Finding, failed, not_ok
from client.settings import Server
from shared.errors import FedVaultError, RunError

LARGEST_SKEW_S = 5.0
VAULT_STARTS_WITHIN_S = 20.0
"""A vault whose container has just begun still loads its libraries."""


def server_findings(
    link_folder: Path, server: Server, base: Path, *, begins: Callable[[str], None] = lambda _check: None
) -> Iterator[Finding]:
    """Check what stands between this node and its server, as far as each check makes the next one possible.

    Args:
        link_folder: holds the node's membership.
        server: how it is reached.
        base: the folder of node.toml.
        begins: told the name of each check that may take long before it is made.
    """
    try:
        member = membership(link_folder)
    except FedVaultError as error:
        yield failed("membership", error)
        return
    left = member.expires - datetime.now(UTC)
    ends = f"ends in {left.days} days"
    yield Finding("certificate", True, ends) if left > timedelta(0) else not_ok("certificate", ends, INVITED_BACK)
    begins("server")
    try:
        extra = server.authority(base)
        context = tls_context(member.authority_path, member.certificate_path, member.key_path, extra_ca=extra)
        with httpx.Client(verify=context, proxy=through(server.proxy, extra), timeout=15.0) as client:
            answer = client.get(f"https://{member.server}/")
    except (httpx.HTTPError, OSError) as error:
        todo = "Check name, port, firewall and proxy ([server] in node.toml); ask whether the server runs."
        yield not_ok("server", f"{member.server}: {error}", todo)
        return
    yield Finding("server", True, f"{member.server} answers through TLS")
    yield _clock(answer)
    begins("key")
    yield _key(member, server, base)


def vault_answers(socket: Path) -> str:
    """Say how many rows the vault behind a socket has in its ledger; one that is starting up is waited for.

    Raises:
        RunError: it does not answer.
    """
    vault = VaultClient(socket)
    try:
        return f"answers, its ledger has {vault.status(starts_within_s=VAULT_STARTS_WITHIN_S).ledger_height} rows"
    except grpc.RpcError:
        raise RunError(
            f"Expected the vault to answer at {socket}, it does not.",
            hint="Is its container running? Both need one volume for the socket and one group (socket_group).",
        ) from None
    finally:
        vault.close()


def _clock(answer: httpx.Response) -> Finding:
    here, there = datetime.now(UTC), clock_of(answer)
    if there is None:
        return Finding("clock", True, "the server does not say its time")
    skew, saw = abs((here - there).total_seconds()), clocks_in_words(here, there)
    return Finding("clock", True, saw) if skew <= LARGEST_SKEW_S else not_ok("clock", saw, "Set it by NTP.")


def _key(member: Membership, server: Server, base: Path) -> Finding:
    fleet, state = member.connect(server, base), read_link(member.folder)
    try:
        fleet.activate(state.node_id or member.node_id)
    except WrongClock as error:
        return not_ok("key", str(error), "Set the clock by NTP.")
    except NotAccepted as error:
        todo = "Ask the server's operator whether this node was revoked. Right after a crash: wait a minute."
        return not_ok("key", str(error), todo)
    except (*CUT, Refused) as error:
        return not_ok("key", str(error), "The gateway answers but Flower does not: ask the server's operator.")
    finally:
        # a link that runs stays present; without one the node is not
        fleet.close(deactivate=not state.connected)
    return Finding("key", True, f"accepted as {member.name}")
