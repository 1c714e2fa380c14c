"""The operator's socket decides, and the link's socket does not."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from client.operator_api.asking import OperatorClient, Refused
from client.operator_api.messages import QUESTIONS, path, read, write
from client.operator_service.jobs import UNREADABLE, Jobs, in_words
from client.operator_service.service import serving_operator
from client.settings import folders, load_node
from client.vault.review.node_files import open_node
from client.vault.service.grpc_service import Steps, VaultService, serving
from client.vault.service.node_vault import NodeVault
from client.vault_api._generated import vault_pb2
from shared.errors import BudgetError, DataError, RunError
from shared.protocol.messages import Peer
from shared.study.declaration import Study
from simulations.e2e.federation import wait_until
from tests.client.dashboard.conftest import CELL
from tests.support.operators_page import finished, show_study

Studies = Callable[..., Study]


def test_the_links_socket_has_no_method_that_decides(tmp_path: Path, config: Path) -> None:
    methods = [method.name for method in vault_pb2.DESCRIPTOR.services_by_name["Vault"].methods]
    assert sorted(methods) == ["Evaluate", "Forget", "Leg", "Offer", "Status", "Train"]
    steps, socket = Steps(), tmp_path / "vault.sock"
    with serving(VaultService(NodeVault(config), steps), socket), grpc.insecure_channel(f"unix:{socket}") as channel:
        for question in QUESTIONS:
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(path(question), request_serializer=write, response_deserializer=read)(
                    {}, timeout=10
                )
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.guarantee(
    "only the vault's own user can reach the operator's socket, whatever group the link's socket has."
)
def test_the_operators_socket_is_its_users_alone_and_lies_beside_no_other(config: Path) -> None:
    text = config.read_text()
    config.write_text(text.replace("[node]\n", f"[node]\nsocket_group = {os.getgid()}\n"))
    try:
        places = folders(config, load_node(config))
        with serving_operator(config) as socket:
            assert stat.S_IMODE(socket.stat().st_mode) == 0o600 and stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
            assert socket == places.operator_socket and socket.parent != places.socket.parent
            assert len(str(socket)) <= len(str(places.socket)), "no folder is too long for this one alone"
            mounted = (places.running, places.link)
            assert not any(socket.is_relative_to(folder) for folder in mounted), "what a link's container mounts"
    finally:
        config.write_text(text)


@pytest.mark.guarantee("no answer to the operator's page holds a cell of a record.")
def test_no_answer_holds_a_cell_of_a_record(config: Path, study_of: Studies) -> None:
    show_study(config, study_of("cells"), "r-cells")
    with serving_operator(config) as socket:
        vault = OperatorClient(socket)
        looked = finished(vault, "r-cells", "ward")
        assert looked["summary"]["records"]["problems"] == 3, "rows that a command quotes, one with a note beside"
        answers = [vault.ask(question) for question in ("overview", "activity", "studies", "ledger")]
        vault.ask("decide", run="r-cells", dataset="ward", answer="no", by="A", note="", via="a test")
        wait_until(lambda: open_node(config).ledger_state().answer("r-cells") == "no", "it is entered")
        answers += [looked, vault.ask("review", run="r-cells", dataset="ward")]
        vault.close()
    assert CELL in config.with_name("ward.csv").read_text() and CELL not in json.dumps(answers)


def test_a_message_that_may_quote_a_record_is_not_passed_on() -> None:
    assert in_words(DataError(f"Expected a number, got {CELL!r}."))["error"] == UNREADABLE
    assert CELL not in json.dumps(in_words(ValueError(CELL)))
    assert in_words(BudgetError("Expected less.", hint="Ask for less."))["hint"] == "Ask for less."


def test_who_decides_is_named_and_what_is_not_on_offer_is_refused(config: Path, study_of: Studies) -> None:
    show_study(config, study_of("nameless"), "r-nameless")
    with serving_operator(config) as socket:
        vault = OperatorClient(socket)
        decision = {"run": "r-nameless", "dataset": "ward", "answer": "yes", "note": "", "via": ""}
        for wrong in ({"by": ""}, {"by": " "}, {"by": "x" * 81}, {"by": "two\nlines"}, {"run": "r", "by": "A"}):
            with pytest.raises(Refused):
                vault.ask("decide", **(decision | wrong))
        with pytest.raises(Refused):
            vault.ask("review", run="r-name")
        vault.close()
    assert open_node(config).ledger_state().decisions.get("r-nameless") is None


def test_a_yes_counts_for_the_other_nodes_that_were_shown(config: Path, study_of: Studies) -> None:
    study = study_of("summed")
    study = study.model_copy(update={"federation": study.federation.model_copy(update={"secure_sum": "masked"})})
    show_study(config, study, "r-summed", peers=(Peer("south", "a" * 64),))
    with serving_operator(config) as socket:
        vault = OperatorClient(socket)
        shown = finished(vault, "r-summed", "ward")["shown"]
        show_study(config, study, "r-summed", peers=(Peer("south", "b" * 64),))
        vault.ask("decide", run="r-summed", dataset="ward", answer="yes", by="A", note="", via="", shown=shown)
        said = finished(vault, "r-summed", "ward")
        vault.close()
    assert "peers have changed" in said.get("error", ""), said
    assert open_node(config).ledger_state().decisions.get("r-summed") is None


def test_a_vault_that_is_not_there_is_said(tmp_path: Path) -> None:
    vault = OperatorClient(tmp_path / "operator.sock", timeout_s=2)
    with pytest.raises(RunError, match="Expected the vault to answer"):
        vault.ask("overview")
    vault.close()


def test_jobs_run_one_after_the_other_and_are_forgotten_after_a_while() -> None:
    now = [0.0]
    jobs = Jobs(now=lambda: now[0])
    assert jobs.start("a", "review", lambda on_stage: {"is": "done"})
    wait_until(lambda: (job := jobs.latest("a")) and job.answer, "it is done")
    now[0] = 301.0
    assert jobs.latest("a") is None and jobs.latest("b") is None
