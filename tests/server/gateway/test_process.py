"""What the gateway does beside serving goes on whatever happens to the run store."""

import threading
from typing import cast

import pytest
from sqlalchemy.exc import OperationalError

from server.flower.control import Control
from server.gateway import process
from server.gateway.process import Presence, _keep_synchronised
from server.run_store.store import Store


def test_a_run_store_that_is_away_for_a_while_does_not_end_the_look_at_flowers_nodes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop, looks = threading.Event(), list[int]()

    class Away(Presence):
        def look(self, store: Store, control: Control) -> None:
            looks.append(len(looks))
            if len(looks) == 4:
                stop.set()
            elif len(looks) > 1:
                raise OperationalError("SELECT 1", {}, Exception("the server closed the connection"))

    monkeypatch.setattr(process, "SYNCHRONISE_EVERY_S", 0.0)
    with caplog.at_level("INFO"):
        _keep_synchronised(cast(Store, None), cast(Control, None), Away(), stop)
    told = [record.getMessage() for record in caplog.records]
    assert len(looks) == 4 and len(told) == 2 and "It is tried again." in told[0] and "succeeds again" in told[1]
