"""What a run leaves is handed out as it is: the adapter's own files, its card, and a report that verifies."""

import asyncio
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.responses import StreamingResponse

from server.dashboard.downloads import adapter_archive, adapter_card, signed_report
from shared.errors import SettingsError
from shared.evidence.signed_report import verify
from shared.study.declaration import Study
from tests.support.server_page import ServerInPieces


def test_a_finished_run_hands_out_its_adapter_and_a_report_that_verifies(
    tmp_path: Path, make_study: Callable[..., Study]
) -> None:
    server = ServerInPieces(tmp_path / "federation")
    server.begin(make_study())
    server.finish(1, {"accuracy": 0.8, "records": 100})
    with pytest.raises(SettingsError, match="finished run"):
        adapter_archive(server.home, server.store, server.run)
    adapter = server.home.runs / server.run / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "README.md").write_text("the card")
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    server.store.set_state(server.run, "finished")

    answer = adapter_archive(server.home, server.store, server.run)
    with zipfile.ZipFile(io.BytesIO(asyncio.run(_whole(answer)))) as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    assert names == {
        f"{server.run}/README.md": b"the card",
        f"{server.run}/adapter_model.safetensors": b"weights",
    }
    assert adapter_card(server.home, server.store, server.run).body == b"the card"
    report = server.site().watch.history(server.store.run(server.run)).report
    assert report is not None
    authority = (server.home.keys / "authority.crt").read_bytes()
    verified = verify(bytes(signed_report(server.home, report, "html").body), authority)
    assert verified.signer is not None and verified.report.run.name == server.run
    with pytest.raises(SettingsError, match="a form"):
        signed_report(server.home, report, "exe")
    server.store.close()


async def _whole(answer: object) -> bytes:
    assert isinstance(answer, StreamingResponse)
    return b"".join([bytes(piece) async for piece in answer.body_iterator])  # type: ignore[arg-type]
