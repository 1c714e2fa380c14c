"""Write a report's files where somebody wants them, and say what a checked one is."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from shared.errors import SettingsError
from shared.evidence.facts import Language
from shared.evidence.signed_report import FORMS, SignedReport, Verified, written
from shared.evidence.texts import FILES, Texts
from shared.evidence.wording import in_words
from shared.files import write_atomically
from shared.printable import one_line


def write_files(made: SignedReport, out: Path, key: ec.EllipticCurvePrivateKey | None = None) -> list[Path]:
    """Write a report as HTML, PDF and JSON beside each other, or as the one that the name ends in.

    Args:
        made: signed, unless it is a simulation's.
        out: such as `report.pdf`, or `report` for all three.
        key: that signed it.

    Raises:
        SettingsError: the folder is not there.
    """
    if not out.parent.is_dir():
        raise SettingsError(f"Expected a folder that is there, got {out.parent}.")
    wanted = [form for form in FORMS if out.suffix == f".{form}"] or list(FORMS)
    paths = [out if out.suffix == f".{form}" else out.with_name(f"{out.name}.{form}") for form in wanted]
    for form, path in zip(wanted, paths, strict=True):
        write_atomically(path, written(made, form, key))
    return paths


def language(name: str) -> Language:
    """Return a language that reports are written in.

    Raises:
        SettingsError: there is no catalogue of it.
    """
    for known in FILES:
        if name == known:
            return known
    raise SettingsError(f"Expected a language of {', '.join(FILES)}, got language={name!r}.")


def content_of(file: Path) -> bytes:
    """Read a file that somebody wants checked.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError:
        raise SettingsError(f"Expected a file, got {file}, which cannot be read.") from None


def is_report(content: bytes) -> bool:
    """Return whether a file is one of a report's, rather than a receipt."""
    return content.startswith((b"%PDF", b"<!doctype")) or b'"fedvault_report"' in content


def verified_lines(verified: Verified) -> Sequence[str]:
    """Say what was checked, whose it is, and what it means."""
    report, texts = verified.report, Texts("en")
    run = f", run {one_line(report.run.name)}" if report.run.name else ""
    first = (
        f"{'Valid' if verified.signer else 'Unsigned'}. Report of a {report.kind} on study "
        f"{report.study.sha256[:16]}{run}: {report.run.rounds_done} of {report.run.rounds} rounds, "
        f"{report.run.state}, issued {report.issued}."
    )
    lines = [first, in_words(report, texts)]
    if verified.form != "json":
        compared = "The page shows what its figures say, to the byte."
        other = "The page is as it was signed; another version of FedVault made it, so it was not written again here."
        lines.append(compared if verified.pages_compared else other)
    if verified.signer is None:
        return [*lines, "Nobody's key stands behind a simulation: whoever holds the file could have made it."]
    whose = (
        f"It is {one_line(verified.signer.name)}'s." if verified.signer.name else "Whose that is, --authority tells."
    )
    return [*lines, f"Signed with the key {verified.signer.fingerprint}.", whose]
