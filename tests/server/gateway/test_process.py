"""What the gateway's process does beside serving, and what it takes for itself."""

import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import uvicorn
from sqlalchemy.exc import OperationalError

from server.flower.control import Control
from server.gateway import process
from server.gateway.process import (
    MOST_DESCRIPTORS,
    Presence,
    _keep_synchronised,
    keep_serving_metrics,
    metrics_config,
    raise_descriptor_limit,
)
from server.run_store.store import Store
from server.settings import ServerSettings

FILES = resource.RLIMIT_NOFILE


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


def test_metrics_whose_port_is_taken_are_missed_once_and_served_when_it_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries, stop = list[int](), threading.Event()

    class Server:
        def __init__(self, config: uvicorn.Config) -> None:
            assert config.port == 9464

        def run(self) -> None:
            tries.append(len(tries))
            if len(tries) < 4:
                sys.exit(1)

    monkeypatch.setattr(process, "METRICS_AGAIN_S", 0.0)
    monkeypatch.setattr(uvicorn, "Server", Server)
    keep_serving_metrics(uvicorn.Config(None, host="127.0.0.1", port=9464, log_config=None), stop)  # type: ignore[arg-type]
    assert len(tries) == 4 and caplog.text.count("another program has port 9464 of 127.0.0.1") == 1


def test_metrics_are_served_at_the_address_that_the_settings_name(tmp_path: Path) -> None:
    settings = ServerSettings(hosts=("a",), metrics_listen="192.0.2.1", metrics_port=9)
    with Store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        config = metrics_config(settings, store, Presence(), list)
    assert (config.host, config.port) == ("192.0.2.1", 9)


@pytest.fixture
def few_files() -> Iterator[int]:
    """Let this process open few files; return how many it may allow itself."""
    soft, hard = resource.getrlimit(FILES)
    resource.setrlimit(FILES, (512, hard))
    yield hard
    resource.setrlimit(FILES, (soft, hard))


def test_the_gateway_may_open_as_many_files_as_its_user_may(few_files: int) -> None:
    wanted = MOST_DESCRIPTORS if few_files == resource.RLIM_INFINITY else min(few_files, MOST_DESCRIPTORS)
    assert raise_descriptor_limit() == wanted == resource.getrlimit(FILES)[0]
    assert raise_descriptor_limit() == wanted, "once more changes nothing"
