"""Hand out a run's adapter, its card and its report; nothing of it is written anywhere."""

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from starlette.responses import Response, StreamingResponse

from server.certificate_authority import server_identity
from server.operator.actions import finished_adapter
from server.run_store.store import Store
from server.settings import Home
from shared.errors import SettingsError
from shared.evidence.facts import Report
from shared.evidence.signed_report import FORMS, sign, written

CARD = "README.md"
PIECE_BYTES = 2**20
TYPES = {"html": "text/html", "pdf": "application/pdf", "json": "application/json"}


def adapter_archive(home: Home, store: Store, run: str) -> Response:
    """Return a finished adapter's folder as one file.

    Raises:
        SettingsError: the run is not finished.
    """
    finished, folder = finished_adapter(home, store, run)
    packed = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, Path(finished.id) / path.relative_to(folder))
    return StreamingResponse(_pieces(packed), headers=_saved_as(f"{finished.id}.zip"), media_type="application/zip")


def adapter_card(home: Home, store: Store, run: str) -> Response:
    """Return a finished adapter's card as it is exported.

    Raises:
        SettingsError: the run is not finished.
    """
    finished, folder = finished_adapter(home, store, run)
    card = (folder / CARD).read_bytes()
    return Response(card, headers=_saved_as(f"{finished.id}-{CARD}"), media_type="text/markdown")


def signed_report(home: Home, report: Report, form: str) -> Response:
    """Return a run's report, signed with the server's key.

    Raises:
        SettingsError: reports have no such form.
    """
    if form not in FORMS:
        raise SettingsError(f"Expected a form of {', '.join(FORMS)}, got {form!r}.")
    key, certificate = server_identity(home.keys)
    content = written(sign(report, key, certificate), form, key)
    return Response(content, headers=_saved_as(f"report-{report.run.name}.{form}"), media_type=TYPES[form])


def _pieces(packed: IO[bytes]) -> Iterator[bytes]:
    with packed:
        packed.seek(0)
        while piece := packed.read(PIECE_BYTES):
            yield piece


def _saved_as(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
