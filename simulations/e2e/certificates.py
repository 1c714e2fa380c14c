"""Faults of certificates: nodes that were not invited, and certificates that have expired."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client.link.fleet import CUT, NotAccepted
from client.link.membership import membership
from client.settings import Server
from server.certificate_authority import AUTHORITY, create, issue_node, issue_server
from server.settings import Home
from simulations.e2e.federation import Federation, Impatience, wait_until
from simulations.e2e.scene import Scene

LONG_AGO = timedelta(days=500)


def uninvited(scene: Scene) -> str:
    """Try a used invite, a forged one, a key alone, a foreign certificate, a self-made one: all are refused."""
    federation, folder = scene.federation, scene.federation.folder / "stranger"
    folder.mkdir()
    federation.config("stranger").write_text("")
    before = _known(federation)
    used = federation.folder / f"{scene.honest[0]}.invite.json"
    forged = federation.folder / "forged.invite.json"
    forged.write_text(json.dumps(json.loads(used.read_text()) | {"token": "guess", "name": "stranger"}))
    for invite in (used, forged):
        output = federation.node("stranger", "join", str(invite), check=False)
        if "403" not in output:
            raise Impatience(output)
    key = ec.generate_private_key(ec.SECP384R1())
    # an authority of its own by the federation's very name, and a certificate that vouches for itself
    create(folder / "authority", "FedVault federation")
    foreign = issue_node(folder / "authority", scene.honest[0], _request(key, scene.honest[0]))
    for what, certificate in (("none", None), ("a foreign one", foreign), ("a self-made one", _self_signed(key))):
        _turned_away(scene, folder / what.replace(" ", "-"), key, certificate, what)
    if _known(federation) != before:
        raise Impatience("the list of nodes has changed")
    record = scene.after(lambda record: record["outcome"] == "aggregated", "the others go on")
    return f"no invite, no entry, with no certificate of its own either; round {record['round']} goes on"


def expired_server_certificate(scene: Scene) -> str:
    """Let the server's certificate expire: doctor says so; after renewal all nodes are back."""
    federation, name = scene.federation, scene.honest[0]
    issue_server(Home(federation.home).keys, ["127.0.0.1"], now=datetime.now(UTC) - LONG_AGO)
    federation.signal("server", "gateway")
    wait_until(lambda: "expired" in federation.node(name, "doctor", check=False), "doctor sees the expired certificate")
    federation.server("renew")
    federation.signal("server", "gateway")
    return f"back in round {scene.all_accepted()['round']}"


def expired_node_certificate(scene: Scene) -> str:
    """Let a node's certificate expire: it is shut out and doctor says so, until it has a valid one."""
    federation, name = scene.federation, scene.honest[0]
    member, number = membership(federation.config(name).parent / "node" / "link"), scene.node_id(name)
    valid = member.certificate_path.read_bytes()
    try:
        member.certificate_path.write_bytes(expired_certificate(federation, name))
        federation.signal(name, "link")
        record = scene.after(lambda record: number not in record["accepted"], f"{name} is not let in")
        output = federation.node(name, "doctor", check=False)
        if "FAILED certificate:" not in output:
            raise Impatience(output)
    finally:
        member.certificate_path.write_bytes(valid)
    federation.signal(name, "link")
    back = scene.after(scene.accepted(name), f"{name} is back")
    return f"not let in in round {record['round']}, back in round {back['round']}"


def expired_certificate(federation: Federation, name: str) -> bytes:
    """Return a certificate for a node's own key, signed by the server's authority, that ended long ago."""
    request = _request(membership(federation.config(name).parent / "node" / "link").key(), name)
    return issue_node(Home(federation.home).keys, name, request, now=datetime.now(UTC) - LONG_AGO)


def _known(federation: Federation) -> list[dict[str, str]]:
    """Return the server's list of nodes, without who is present: that changes by itself."""
    nodes: list[dict[str, str]] = json.loads(federation.server("nodes", "--json"))
    return [{key: value for key, value in node.items() if key != "present"} for node in nodes]


def _turned_away(
    scene: Scene, folder: Path, key: ec.EllipticCurvePrivateKey, certificate: bytes | None, what: str
) -> None:
    """Act as a node in everything but the invite, and be refused by TLS or by the gateway."""
    folder.mkdir()
    host, port = scene.federation.address
    somebody = scene.node_id(scene.honest[0])
    facts = {"name": "stranger", "server": f"{host}:{port}", "node_id": somebody}
    (folder / "membership.json").write_text(json.dumps(facts))
    (folder / "authority.crt").write_bytes((Home(scene.federation.home).keys / f"{AUTHORITY}.crt").read_bytes())
    encoding, unencrypted = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "node.key").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, unencrypted))
    if certificate is not None:
        (folder / "node.crt").write_bytes(certificate)
    fleet = membership(folder).connect(Server(), folder)
    try:
        fleet.activate(somebody)
    except (*CUT, NotAccepted):
        return
    finally:
        fleet.close(deactivate=False)
    raise Impatience(f"a stranger was let in; its certificate: {what}")


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _request(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    made = x509.CertificateSigningRequestBuilder().subject_name(_name(name)).sign(key, hashes.SHA384())
    return made.public_bytes(serialization.Encoding.PEM)


def _self_signed(key: ec.EllipticCurvePrivateKey) -> bytes:
    now, name = datetime.now(UTC), _name("stranger")
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)
