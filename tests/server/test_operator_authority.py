"""Operators have an authority of their own, and its certificates are never a node's."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.certificate_authority import AUTHORITY_LIFETIME, create, issue_node, trusted_authorities
from server.gateway.client_certificate import key_of
from server.operator_authority import FILE, MARK, bears_mark, issue, operators_authority, operators_certificate
from shared.errors import SettingsError

DAY = timedelta(days=1)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create(tmp_path / "keys", "test federation")
    return tmp_path / "keys"


def a_node(keys: Path, name: str = "north", *, marked: bool = False) -> x509.Certificate:
    """Return a node's certificate; `marked`: its request asks for an operator's mark."""
    key = ec.generate_private_key(ec.SECP384R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    if marked:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(MARK)])
        request = request.add_extension(names, critical=False)
    pem = request.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM)
    return x509.load_pem_x509_certificate(issue_node(keys, name, pem))


@pytest.mark.guarantee("no certificate of an operator is taken for a node's, and none of a node's for an operator's.")
def test_neither_kind_of_certificate_is_taken_for_the_other(keys: Path) -> None:
    operator = issue(keys, "anna", DAY).certificate
    authority, federation = operators_authority(keys), trusted_authorities(keys)
    shown = operator.public_bytes(Encoding.DER)
    assert operators_certificate(shown, authority) == operator and key_of(shown) is None
    with pytest.raises(ValueError, match="issuer"):
        operator.verify_directly_issued_by(x509.load_pem_x509_certificate(federation.encode()))
    for node in (a_node(keys), a_node(keys, marked=True), a_node(keys, "anna"), a_node(keys, "FedVault operators")):
        shown = node.public_bytes(Encoding.DER)
        assert operators_certificate(shown, authority) is None and not bears_mark(node)
        assert key_of(shown) is not None
    assert operators_certificate(operator.public_bytes(Encoding.DER), federation) is None


def test_an_authority_of_the_same_name_is_another(keys: Path, tmp_path: Path) -> None:
    other = issue(tmp_path / "elsewhere", "anna", DAY).certificate
    assert operators_certificate(other.public_bytes(Encoding.DER), operators_authority(keys)) is None


def test_a_certificate_is_for_tls_clients_and_no_authority(keys: Path) -> None:
    issued = issue(keys, "anna", DAY)
    extensions = issued.certificate.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_cert_sign and not usage.crl_sign


def test_key_and_certificate_come_as_text_and_as_what_a_browser_imports(keys: Path) -> None:
    issued = issue(keys, "anna", DAY)
    pem = issued.as_pem()
    assert x509.load_pem_x509_certificate(pem) == issued.certificate
    assert load_pem_private_key(pem, None).public_key() == issued.certificate.public_key()
    loaded = pkcs12.load_pkcs12(issued.as_pkcs12("a passphrase"), b"a passphrase")
    assert loaded.cert is not None and loaded.cert.certificate == issued.certificate
    assert loaded.cert.friendly_name == b"FedVault operator anna" and loaded.additional_certs == []
    with pytest.raises(ValueError, match=r"(?i)password|mac"):
        pkcs12.load_pkcs12(issued.as_pkcs12("a passphrase"), b"another")


def test_of_many_who_make_the_authority_at_once_one_wins(keys: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        authorities = set(threads.map(lambda _: operators_authority(keys), range(8)))
    assert len(authorities) == 1 and (keys / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"nothing", "certificate alone"])
def test_a_file_that_cannot_be_read_is_no_authority(keys: Path, content: bytes | str) -> None:
    (keys / FILE).write_bytes(content if isinstance(content, bytes) else (keys / "authority.crt").read_bytes())
    with pytest.raises(SettingsError, match="the operators' authority at"):
        operators_authority(keys)


def test_no_certificate_outlives_its_authority(keys: Path) -> None:
    operators_authority(keys)
    with pytest.raises(SettingsError, match="beyond the certificate's end"):
        issue(keys, "anna", DAY, now=datetime.now(UTC) + AUTHORITY_LIFETIME)
