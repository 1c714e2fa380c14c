"""The three files of a report: what they show is what was signed, and any changed byte is noticed."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.errors import PeerError, SettingsError
from shared.evidence import signed_report
from shared.evidence.facts import Report, meaning
from shared.evidence.layout import layout
from shared.evidence.signature import Signer
from shared.evidence.signed_report import FORMS, Form, SignedReport, sign, verify, written
from shared.pages.html_page import html_page
from shared.pages.pdf_page import _source, page_pictures, pdf_page
from tests.support.reports import HOSTILE, STUDY, Federation, node_report, server_report, simulation_report

MADE = {"node": node_report, "server": server_report, "simulation": simulation_report}


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A federation with one node."""
    return Federation(tmp_path)


def files(federation: Federation, report: Report) -> dict[Form, bytes]:
    made = federation.signed(report)
    return {form: written(made, form, federation.node_key) for form in FORMS}


def numbers(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every number of a JSON value."""
    if isinstance(plain, bool) or plain is None or isinstance(plain, str):
        return
    if isinstance(plain, dict | list):
        for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
            yield from numbers(value, (*path, key))
        return
    yield path


def changed(plain: Any, path: tuple[Any, ...]) -> Report:
    copied = json.loads(json.dumps(plain))
    place = copied
    for key in path[:-1]:
        place = place[key]
    value = place[path[-1]]
    place[path[-1]] = 2 * value + 1 if isinstance(value, int) else value * 1.5 + (0 if 0 < value < 0.5 else 0.5)
    return Report.model_validate(copied)


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_number_of_the_json_stands_on_the_html_page_and_on_the_printed_one(kind: str, language: str) -> None:
    report = MADE[kind](language=language)
    plain, unseen = report.model_dump(mode="json"), []
    pages = html_page("", language, layout(report)), _source("", language, layout(report), b"")
    places = [
        path for path in numbers(plain) if path[-1] not in ("fedvault_report", "schema_version")
    ]  # one value only
    assert len(places) > 20
    for path in places:
        other = layout(changed(plain, path))
        now = html_page("", language, other), _source("", language, other, b"")
        if any(_text(page) == _text(before) for page, before in zip(now, pages, strict=True)):
            unseen.append(path)
    assert unseen == []


def _text(page: str) -> str:
    """A page without the lengths of its drawings: a changed figure must be written, not only drawn."""
    return re.sub(r"(<rect|<line|<polyline|<circle)[^>]*>", "", page)


def test_a_changed_number_changes_the_pdf_itself() -> None:
    report = node_report()
    other = changed(report.model_dump(mode="json"), ("ledger", "height"))
    assert pdf_page("", "en", layout(report)) == pdf_page("", "en", layout(report))
    assert pdf_page("", "en", layout(report)) != pdf_page("", "en", layout(other))


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_report_has_at_most_three_printed_pages(kind: str, language: str) -> None:
    report = MADE[kind](language=language)
    many = {"houses": report.houses * 60, "incidents": report.incidents * 90, "decisions": report.decisions * 30}
    if (facts := report.simulation) is not None:
        grown = {"sites": facts.sites * 80, "arms": facts.arms * 7, "curve": facts.curve * 40}
        many["simulation"] = facts.model_copy(update=grown)
    if (evaluated := report.further.evaluation) is not None:
        grown = {"estimates": evaluated.estimates * 20}
        many["further"] = report.further.model_copy(update={"evaluation": evaluated.model_copy(update=grown)})
    for one in (report, report.model_copy(update=many)):
        assert len(page_pictures("", language, layout(one))) <= 3
        assert len(html_page("", language, layout(one))) < 300_000


def test_each_file_says_whose_report_it_is_offline(federation: Federation) -> None:
    report = node_report()
    for form, content in files(federation, report).items():
        verified = verify(content, federation.authority)
        assert (verified.report, verified.form, verified.pages_compared) == (report, form, True)
        assert isinstance(verified.signer, Signer) and verified.signer.name == "st-mary"
        anonymous = verify(content).signer
        assert anonymous is not None and anonymous.name == "" and len(anonymous.fingerprint) == 64


@pytest.mark.guarantee("a report file with one changed byte is refused, be it JSON, HTML or PDF.")
def test_a_changed_byte_of_any_file_is_refused(federation: Federation) -> None:
    generator = random.Random(26)
    for form, content in files(federation, node_report()).items():
        places = {0, len(content) - 1, *generator.sample(range(len(content)), 60)}
        for place in places:
            other = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            with pytest.raises(PeerError):
                verify(other, federation.authority)
        for other in (content + b" ", content[:-1], b" " + content, content + content):
            with pytest.raises(PeerError):
                verify(other, federation.authority)
        assert verify(content, federation.authority).form == form


@pytest.mark.guarantee("of bytes and signature, one changed character is refused.")
def test_a_signature_is_of_its_bytes_alone(federation: Federation) -> None:
    made = federation.signed(node_report())
    flipped = made.signature[:20] + ("A" if made.signature[20] != "A" else "B") + made.signature[21:]
    other = SignedReport(made.report, made.public_key, made.certificate, flipped)
    with pytest.raises(PeerError, match="as it was signed"):
        verify(written(other, "json"))
    swapped = SignedReport(made.report.model_copy(update={"issuer": "x"}), *list(vars(made).values())[1:])
    with pytest.raises(PeerError, match="as it was signed"):
        verify(written(swapped, "json"))


@pytest.mark.guarantee("a page that does not show what its signed JSON says is refused.")
@pytest.mark.parametrize("form", ["html", "pdf"])
def test_a_page_that_flatters_is_refused_though_its_owner_signed_it(
    federation: Federation, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation.signed(node_report())
    flattering = node_report(meaning=meaning(0.01))
    monkeypatch.setattr(signed_report, "layout", lambda _report: layout(flattering))
    page = written(made, form, federation.node_key)
    monkeypatch.undo()
    with pytest.raises(PeerError, match="shows what its signed figures say"):
        verify(page, federation.authority)


def test_a_page_of_another_version_is_checked_by_its_signature_and_said_so(federation: Federation) -> None:
    report = node_report(renderer="0" * 16)
    for form, content in files(federation, report).items():
        assert verify(content, federation.authority).pages_compared == (form == "json")
        with pytest.raises(PeerError):
            verify(content[:900] + bytes([content[900] ^ 1]) + content[901:], federation.authority)


def test_another_federations_report_is_refused_with_one_sentence(federation: Federation, tmp_path: Path) -> None:
    other = Federation(tmp_path / "other")
    for content in files(federation, node_report()).values():
        with pytest.raises(PeerError, match="that this authority certified") as refused:
            verify(content, other.authority)
        assert "another federation" in refused.value.hint
    with pytest.raises(SettingsError, match="as the authority"):
        verify(content, b"no certificate")


def test_a_nodes_key_signs_no_servers_report_nor_the_other_way_round(federation: Federation) -> None:
    with pytest.raises(PeerError, match="signed by a server"):
        verify(written(federation.signed(server_report()), "json"), federation.authority)
    key = serialization.load_pem_private_key(federation.server.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = federation.server.certificate.read_text()
    with pytest.raises(PeerError, match="signed by a node"):
        verify(written(sign(node_report(), key, certificate), "json"), federation.authority)
    verified = verify(written(sign(server_report(), key, certificate), "pdf", key), federation.authority)
    assert verified.signer is not None and verified.signer.name == "server.example.org"


@pytest.mark.parametrize("form", FORMS)
def test_an_unsigned_report_is_refused_unless_it_is_a_simulations(form: Form) -> None:
    with pytest.raises(PeerError, match="nobody signed"):
        verify(written(SignedReport(node_report()), form))
    verified = verify(written(SignedReport(simulation_report()), form))
    assert verified.signer is None and verified.pages_compared


def test_an_unsigned_page_around_signed_figures_is_refused(federation: Federation) -> None:
    made = federation.signed(node_report())
    for form in ("html", "pdf"):
        with pytest.raises(PeerError, match="signature is gone"):
            verify(written(made, form), federation.authority)  # type: ignore[arg-type]


def test_a_simulations_page_is_compared_with_its_figures() -> None:
    page = written(SignedReport(simulation_report()), "html")
    with pytest.raises(PeerError, match="shows what its signed figures say"):
        verify(page.replace(b"<b>0.800</b>", b"<b>0.900</b>"))
    with pytest.raises(PeerError, match="another's"):
        verify(written(SignedReport(simulation_report(renderer="0" * 16)), "html"))


def test_a_report_of_another_format_is_named_with_what_to_do(federation: Federation) -> None:
    written_json = files(federation, node_report())["json"]
    newer = written_json.replace(b'"fedvault_report":1', b'"fedvault_report":2')
    with pytest.raises(PeerError, match="format 1, got one of format 2") as refused:
        verify(newer)
    assert "version of FedVault" in refused.value.hint


def test_an_epsilon_that_its_noise_does_not_give_is_refused_though_it_is_signed(federation: Federation) -> None:
    for wrong in (
        node_report(meaning=meaning(0.01)),
        node_report(meaning=meaning(0.5).model_copy(update={"epsilon": 0.4})),
    ):
        with pytest.raises(PeerError, match=r"the report says 0\.01|other figures"):
            verify(written(federation.signed(wrong), "json"))


@pytest.mark.parametrize(
    "nonsense", [b"", b"[]\n", b"{}\n", b"null\n", b"%PDF-1.7", b"<!doctype html>", b"\xff\n", b"[" * 9999]
)
def test_what_is_no_report_is_said_so(nonsense: bytes) -> None:
    with pytest.raises(PeerError, match="Expected a report"):
        verify(nonsense)


@pytest.mark.parametrize("kind", MADE)
def test_texts_from_outside_stay_texts(kind: str, federation: Federation) -> None:
    hostile = STUDY.model_copy(update={"name": HOSTILE, "purpose": HOSTILE, "requester": HOSTILE, "unit": HOSTILE})
    report = MADE[kind](study=hostile, issuer=HOSTILE)
    page = written(federation.signed(report), "html").decode()
    assert "<script>alert" not in page and page.count("<script") == 1, "only the block of data"
    assert "src=" not in page and "href=" not in page and "default-src 'none'" in page
    assert pdf_page(HOSTILE, "en", layout(report)).startswith(b"%PDF")
