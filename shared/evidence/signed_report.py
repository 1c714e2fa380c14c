"""A report's three files: signed JSON, and HTML and PDF that are written from it, hold it, and are signed themselves.

A page holds the signed JSON: HTML in a block of data, PDF as an attached file, so that whoever has one file has all
figures and needs no other one to check it. The signature of the page's own bytes stands after its end, where readers of
either format pass over it. Both are checked, and the page is written again from its JSON and compared: the signature
alone would let its owner show other figures than the JSON has, and the comparison alone would fail with the next
version of FedVault, which may lay out the same facts differently.
"""

import hashlib
import json
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from shared import evidence, pages
from shared.errors import PeerError
from shared.evidence.facts import VERSION, Report, meaning
from shared.evidence.layout import layout
from shared.evidence.signature import Signer, check, public_pem, signed, signer
from shared.pages.html_page import html_page
from shared.pages.pdf_page import pdf_page
from shared.privacy.accounting import epsilon_rdp
from shared.privacy.releases import SubsampledGaussian

Form = Literal["json", "html", "pdf"]
FORMS: tuple[Form, ...] = ("html", "pdf", "json")
TOLERANCE = 1e-9
WHAT = "report"
OF_REPORT, OF_PAGE = b"fedvault report\n", b"fedvault report page\n"
"""Before what is signed, so that no signature of one thing is one of another."""
ENDS: dict[Form, tuple[str, str]] = {
    "html": ("<!--fedvault-signature:", "-->\n"),
    "pdf": ("\n%fedvault-signature:", "\n"),
}
HIDDEN = re.compile(rb'<script type="application/json" id="report">(.*?)</script>', re.DOTALL)
STREAM = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
MOST_BYTES = 2**24
"""Of an attached file; no more is unpacked."""
ANY = "Any of its three files will do: HTML, PDF or JSON."
RENDER_AGAIN = "Render it again where it was made: report. The JSON inside is as it was signed."


@dataclass(frozen=True)
class SignedReport:
    """A report with the key, certificate and signature of who made it; all three are empty in a simulation's."""

    report: Report
    public_key: str = ""
    certificate: str = ""
    signature: str = ""

    def as_json(self) -> str:
        """Return the report as its file holds it: one spelling only, so that every byte counts."""
        plain = {**vars(self), "report": self.report.model_dump(mode="json")}
        # in HTML a < could end the block that holds it
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")

    def signed_bytes(self) -> bytes:
        """Return the bytes that the signature covers."""
        plain = json.loads(self.as_json())
        del plain["signature"]
        return OF_REPORT + json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Verified:
    """A report that is as it was made."""

    report: Report
    form: Form
    signer: Signer | None
    """None if nobody signed it, as nobody signs a simulation's."""
    pages_compared: bool
    """False for a page of another version of FedVault: its bytes are as signed, and could not be written again here."""


@cache
def renderer() -> str:
    """Return a digest of everything that writes pages: code, texts and typst."""
    folders = [Path(str(module.__file__)).parent for module in (evidence, pages)]
    files = sorted(path for folder in folders for path in folder.iterdir() if path.suffix in (".py", ".toml"))
    if len(files) < len(folders):
        raise PeerError("Expected the code that writes pages, got no files of it.")
    digest = hashlib.sha256(version("typst").encode())
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def sign(report: Report, key: ec.EllipticCurvePrivateKey, certificate: str) -> SignedReport:
    """Put key, certificate and signature under a report."""
    unsigned = SignedReport(report, public_pem(key), certificate)
    return SignedReport(report, unsigned.public_key, certificate, signed(unsigned.signed_bytes(), key))


def written(made: SignedReport, form: Form, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """Return one of the three files.

    Args:
        made: signed, unless it is a simulation's.
        form: of the file.
        key: that signed it; None for a simulation's.
    """
    if form == "json":
        return made.as_json().encode() + b"\n"
    page = _page(made, form)
    if key is None:
        return page
    before, after = ENDS[form]
    return page + f"{before}{signed(OF_PAGE + page, key)}{after}".encode()


def verify(content: bytes, authority: bytes | None = None) -> Verified:
    """Check any of a report's three files, without any network, and say whose it is.

    Guarantee: a report file with one changed byte is refused, be it JSON, HTML or PDF.
    Guarantee: a page that does not show what its signed JSON says is refused.

    Args:
        content: of the file.
        authority: PEM certificates of the federation's authority; None says which key signed, not whose it is.

    Raises:
        PeerError: it is no report, was changed, is of another version or of another federation; the hint says more.
        SettingsError: `authority` is no certificate.
    """
    form, plain, page, page_signature = _opened(content)
    made = read(plain)
    report = made.report
    whose: Signer | None = None
    if made.public_key or made.signature or report.kind != "simulation":
        if not made.signature:
            raise PeerError(
                "Expected a signed report, got one that nobody signed.",
                hint="Sign it where the key is: fedvault-node sign",
            )
        check(made.signed_bytes(), made.public_key, made.signature, what=WHAT)
        if form != "json":
            _check_page(page, made.public_key, page_signature)
        usage: Literal["node", "server"] = "server" if report.kind == "server" else "node"
        whose = signer(made.public_key, made.certificate, report.issued, authority, usage=usage, what=WHAT)
    _check_arithmetic(report)
    if form == "json":
        return Verified(report, form, whose, pages_compared=True)
    same_version = report.renderer == renderer()
    if same_version and _page(made, form) != page:
        raise PeerError("Expected a page that shows what its signed figures say, got a changed one.", hint=RENDER_AGAIN)
    if not same_version and whose is None:
        raise PeerError(
            "Expected a page that this version of FedVault wrote, for comparing it with its figures, got another's.",
            hint=RENDER_AGAIN,
        )
    return Verified(report, form, whose, pages_compared=same_version)


def read(plain: str) -> SignedReport:
    """Read a report without checking its signature.

    Raises:
        PeerError: it is none, is of a version that this one does not know, or is spelled otherwise than it was written.
    """
    try:
        values: dict[str, Any] = json.loads(plain)
        format_version = values["report"]["fedvault_report"]
        if format_version != VERSION:
            raise PeerError(
                f"Expected a report of format {VERSION}, got one of format {format_version!r}.",
                hint="Check it with the version of FedVault that made it; the report names it.",
            )
        made = SignedReport(**{**values, "report": Report.model_validate_json(json.dumps(values["report"]))})
        texts = (made.public_key, made.certificate, made.signature)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
        if made.as_json() != plain:
            raise PeerError("Expected a report as it was written, got a changed one.")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ValidationError):
        raise PeerError("Expected a report, got something else.", hint=ANY) from None
    return made


def read_unsigned(plain: str, *, issuer: str) -> Report:
    """Read a node's report that was made where no key is, and put the node's name in.

    Raises:
        PeerError: it is something else, is signed already, or its figures do not follow from each other.
    """
    made = read(plain.removesuffix("\n"))
    report = made.report
    if made.signature or report.kind != "node" or len(report.houses) != 1:
        raise PeerError("Expected a node's report without a signature, got another.")
    _check_arithmetic(report)
    (house,) = report.houses
    return report.model_copy(update={"issuer": issuer, "houses": (house.model_copy(update={"name": issuer}),)})


def _page(made: SignedReport, form: Form) -> bytes:
    report, blocks = made.report, layout(made.report)
    if form == "html":
        return html_page(report.study.name, report.language, blocks, hidden_json=made.as_json()).encode()
    return pdf_page(report.study.name, report.language, blocks, attached=made.as_json().encode())


def _opened(content: bytes) -> tuple[Form, str, bytes, str]:
    """Return a file's form, the JSON in it, the page without the signature after its end, and that signature."""
    form: Form = "pdf" if content.startswith(b"%PDF") else "html" if content.startswith(b"<!doctype") else "json"
    try:
        if form == "json":
            text = content.decode()
            if not text.endswith("\n"):
                raise PeerError("Expected a report as it was written, got a changed one.")
            return form, text[:-1], b"", ""
        before, after = (end.encode() for end in ENDS[form])
        page, signature = content, b""
        place = content.rfind(before)
        if place >= 0 and content.endswith(after):
            page, signature = content[:place], content[place + len(before) : -len(after)]
        hidden = _hidden(page) if form == "html" else _attached(page)
        if hidden is None:
            raise PeerError("Expected a report, got a page without its figures.", hint=ANY)
        return form, hidden.decode(), page, signature.decode()
    except UnicodeDecodeError:
        raise PeerError("Expected a report, got something else.", hint=ANY) from None


def _hidden(page: bytes) -> bytes | None:
    match = HIDDEN.search(page)
    return None if match is None else match.group(1)


def _attached(page: bytes) -> bytes | None:
    """Return the attached JSON of a PDF, which may be packed."""
    for match in STREAM.finditer(page):
        plain = match.group(1)
        with suppress(zlib.error):
            plain = zlib.decompressobj().decompress(plain, MOST_BYTES)
        if plain.startswith(b'{"certificate":'):
            return plain
    return None


def _check_page(page: bytes, public_key: str, signature: str) -> None:
    if not signature:
        raise PeerError("Expected a signed page, got one whose signature is gone.", hint=RENDER_AGAIN)
    try:
        check(OF_PAGE + page, public_key, signature, what=WHAT)
    except PeerError as error:
        raise PeerError(str(error), hint=RENDER_AGAIN) from None


def _check_arithmetic(report: Report) -> None:
    stated = report.meaning
    if meaning(stated.epsilon) != stated:
        raise PeerError("Expected what its epsilon means, got other figures in the report.")
    if report.kind == "node" and (noise := report.mechanism) is not None:
        release = SubsampledGaussian(noise.noise_multiplier, noise.sampling_rate, noise.steps)
        epsilon = epsilon_rdp([release], report.study.delta) if noise.steps else 0.0
        if abs(epsilon - stated.epsilon) > TOLERANCE:
            raise PeerError(
                f"Expected epsilon {epsilon:.6f} from the stated noise, the report says {stated.epsilon:.6f}."
            )
