"""Every internal name of Flower that FedVault uses, and what is expected of it.

Flower promises to keep `flwr.app`, `flwr.clientapp`, `flwr.serverapp` and `flwr.simulation`. The rest may move with any
release: this is the one place that says so, and the reason why `flwr` is pinned to minor versions that were looked at.
`make test` holds the installed one to it, `make test-flower` the other.
"""

import ast
import importlib
import importlib.metadata
import inspect
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from server.gateway.fleet_calls import FleetCalls
from server.gateway.handed_out import HandedOut
from server.rounds.update_filter import NO_ANSWER
from tests.support.paths import ROOT

PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy", "flwr.simulation"}
CALLED: dict[str, str] = {
    "flwr.app.message.remove_content_from_message": "message",
    "flwr.app.metadata.Metadata": "run_id message_id src_node_id dst_node_id reply_to_message_id group_id created_at "
    "ttl message_type src_task_id dst_task_id",
    "flwr.client.mod.secure_aggregation.secaggplus_mod.secaggplus_mod": "msg ctxt call_next",
    "flwr.common.serde.context_from_proto": "context_proto",
    "flwr.common.serde.fab_to_proto": "fab",
    "flwr.common.serde.message_from_proto": "message_proto",
    "flwr.common.serde.message_to_proto": "message",
    "flwr.common.serde.run_from_proto": "run_proto",
    "flwr.compat.common.recorddict_compat.fitres_to_recorddict": "fitres keep_input",
    "flwr.server.compat.legacy_context.LegacyContext": "context config strategy client_manager",
    "flwr.server.workflow.secure_aggregation.secaggplus_workflow.SecAggPlusWorkflow": "num_shares "
    "reconstruction_threshold max_weight clipping_range quantization_range modulus_range timeout",
    "flwr.supercore.control.ControlHttpClient": "base_url interceptors verify timeout retry_invoker",
    "flwr.supercore.fab.Fab": "hash_str content verifications",
    "flwr.supercore.inflatable.inflatable_object.get_all_nested_objects": "obj",
    "flwr.supercore.inflatable.inflatable_object.get_object_tree": "obj",
    "flwr.supercore.inflatable.inflatable_object.iterate_object_tree": "tree",
    "flwr.supercore.inflatable.inflatable_object.no_object_id_recompute": "",
    "flwr.supercore.inflatable.inflatable_protobuf_utils.make_pull_object_fn_protobuf": "pull_object_protobuf node "
    "run_id",
    "flwr.supercore.inflatable.inflatable_protobuf_utils.make_push_object_fn_protobuf": "push_object_protobuf node "
    "run_id session_id",
    "flwr.supercore.inflatable.inflatable_utils.inflate_object_from_contents": "object_id object_contents "
    "keep_object_contents objects",
    "flwr.supercore.inflatable.inflatable_utils.pull_objects": "object_ids pull_object_fn max_concurrent_pulls "
    "max_time max_tries_per_object initial_backoff backoff_cap",
    "flwr.supercore.inflatable.inflatable_utils.push_objects": "objects push_object_fn object_ids_to_push keep_objects "
    "max_concurrent_pushes",
    "flwr.supercore.interceptors.RuntimeTokenHttpInterceptor": "token",
    "flwr.supercore.interceptors.RuntimeVersionHttpInterceptor": "component_name",
    "flwr.supercore.interceptors.SuperExecAuthHttpInterceptor": "master_secret protected_methods",
    "flwr.supercore.interceptors.http.runtime_version.RuntimeVersionHttpInterceptor": "component_name",
    "flwr.supercore.interceptors.http.utils.add_headers": "request headers",
    "flwr.supercore.primitives.asymmetric.bytes_to_public_key": "public_key_bytes",
    "flwr.supercore.primitives.asymmetric.public_key_to_bytes": "public_key",
    "flwr.supercore.primitives.asymmetric.verify_signature": "public_key message signature",
    "flwr.supercore.runtime.RuntimeHttpClient": "base_url interceptors verify timeout retry_invoker",
    "flwr.superlink.auth_plugin.NoOpControlAuthnPlugin": "",
    "flwr.superlink.cli.flower_superlink.SuperLinkLifespan": "config state_factory",
    "flwr.superlink.config_loader.SuperLinkLifespanConfig": "control_address health_server_address host port insecure "
    "certificates superexec_auth_secret authn_plugin event_log_plugin fleet_event_log_plugin enable_event_log "
    "artifact_provider enable_supernode_auth fleet_api_type fleet_api_address simulation ssl_ca_certfile ssl_certfile "
    "ssl_keyfile database isolation runtime_dependency_install",
    "flwr.superlink.grid.HttpGrid": "runtime_api_address insecure root_certificates token",
    "flwr.superlink.main.create_app": "config superlink_lifespan_class",
    "flwr.supernode.fleet_http_client.FleetHttpClient": "base_url interceptors verify timeout retry_invoker",
    "flwr.supernode.node_auth_http_interceptor.NodeAuthHttpInterceptor": "private_key public_key",
}
"""Functions and classes with the names of their parameters."""
NAMED = {
    "flwr.app.message": "message",
    "flwr.common": "Code FitIns FitRes Parameters Status ndarrays_to_parameters parameters_to_ndarrays",
    "flwr.common.constant": "ErrorCode HEARTBEAT_DEFAULT_INTERVAL ISOLATION_MODE_PROCESS SUPERLINK_NODE_ID "
    "SYSTEM_TIME_TOLERANCE SubStatus TIMESTAMP_HEADER TIMESTAMP_TOLERANCE TRANSPORT_TYPE_GRPC_RERE",
    "flwr.server.client_manager": "SimpleClientManager",
    "flwr.server.strategy": "FedAvg",
    "flwr.server.workflow.constant": "Key MAIN_CONFIGS_RECORD MAIN_PARAMS_RECORD",
    "flwr.supercore.constant": "FLEET_HTTP_PUBLIC_KEY_HEADER FLEET_HTTP_SIGNATURE_HEADER TaskType",
    "flwr.supercore.inflatable.inflatable_utils": "ObjectPullError ObjectPushError",
    "flwr.supercore.protobuf.client": "ProtobufCall ProtobufRequestContext",
    "flwr.supercore.task_identity": "TaskIdentity",
    "flwr.proto.control_pb2": "ListNodesRequest RegisterNodeRequest StartRunRequest UnregisterNodeRequest",
    "flwr.proto.fleet_pb2": "ActivateNodeRequest DeactivateNodeRequest PullMessagesRequest PullMessagesResponse "
    "PushMessagesRequest PushMessagesResponse",
    "flwr.proto.heartbeat_pb2": "SendNodeHeartbeatRequest",
    "flwr.proto.message_pb2": "ConfirmMessageReceivedRequest ConfirmMessageReceivedResponse Message Metadata "
    "ObjectTree PullObjectRequest PullObjectResponse PushObjectRequest PushObjectResponse",
    "flwr.proto.node_pb2": "Node",
    "flwr.proto.recorddict_pb2": "RecordDict",
    "flwr.proto.run_pb2": "GetRunRequest",
    "flwr.proto.runtime_pb2": "AcquireTaskRequest PullTaskInputRequest PushTaskOutputRequest SendTaskHeartbeatRequest",
}
"""Values and message types, by module."""
METHODS = {
    "flwr.supernode.fleet_http_client.FleetHttpClient": "ActivateNode DeactivateNode SendNodeHeartbeat PullMessages "
    "PushMessages GetRun PullObject PushObject ConfirmMessageReceived close",
    "flwr.supercore.control.ControlHttpClient": "RegisterNode UnregisterNode ListNodes StartRun close "
    "from_server_address",
    "flwr.supercore.runtime.RuntimeHttpClient": "AcquireTask PullTaskInput PushTaskOutput SendTaskHeartbeat close "
    "GetNodes from_server_address",
    "flwr.server.superlink.linkstate.LinkState": "acknowledge_node_heartbeat",
    "flwr.server.superlink.linkstate.LinkStateFactory": "state",
    "flwr.superlink.grid.HttpGrid": "_connect _runtime_client get_node_ids push_messages pull_messages set_run run "
    "close",
}
FIELDS = {
    "flwr.proto.fleet_pb2.ActivateNodeRequest": "public_key heartbeat_interval",
    "flwr.proto.fleet_pb2.DeactivateNodeRequest": "node_id",
    "flwr.proto.fleet_pb2.PullMessagesRequest": "node message_ids",
    "flwr.proto.fleet_pb2.PullMessagesResponse": "messages_list message_object_trees",
    "flwr.proto.fleet_pb2.PushMessagesRequest": "node messages_list message_object_trees clientapp_runtime_list",
    "flwr.proto.fleet_pb2.PushMessagesResponse": "results objects_to_push session_id",
    "flwr.proto.heartbeat_pb2.SendNodeHeartbeatRequest": "node heartbeat_interval",
    "flwr.proto.message_pb2.ConfirmMessageReceivedRequest": "node run_id message_object_id",
    "flwr.proto.message_pb2.Message": "metadata content error",
    "flwr.proto.message_pb2.Metadata": "run_id message_id src_node_id dst_node_id reply_to_message_id group_id ttl "
    "message_type created_at",
    "flwr.proto.message_pb2.ObjectTree": "object_id children",
    "flwr.proto.message_pb2.PullObjectRequest": "node run_id object_id",
    "flwr.proto.message_pb2.PullObjectResponse": "object_found object_available object_content",
    "flwr.proto.message_pb2.PushObjectResponse": "stored",
    "flwr.proto.message_pb2.PushObjectRequest": "node run_id object_id object_content session_id",
    "flwr.proto.recorddict_pb2.RecordDict": "items",
    "flwr.proto.run_pb2.GetRunRequest": "node run_id",
    "flwr.proto.runtime_pb2.AcquireTaskRequest": "supported_task_types",
    "flwr.proto.runtime_pb2.PushTaskOutputRequest": "sub_status details",
}
MOVED = (
    "Flower moved {0}: look at what replaced it, change client/link/fleet.py, server/gateway/fleet_calls.py or "
    "server/flower, then this table."
)


def looked_up(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        pytest.fail(MOVED.format(name))


@pytest.mark.parametrize("name", CALLED)
def test_a_function_takes_what_we_give_it(name: str) -> None:
    signature = inspect.signature(looked_up(name))
    assert " ".join(signature.parameters) == CALLED[name], MOVED.format(name)


@pytest.mark.parametrize("module", NAMED)
def test_a_value_is_where_it_was(module: str) -> None:
    for name in NAMED[module].split():
        looked_up(f"{module}.{name}")


@pytest.mark.parametrize("name", METHODS)
def test_a_class_has_the_methods_that_are_called(name: str) -> None:
    found = looked_up(name)
    missing = [method for method in METHODS[name].split() if not hasattr(found, method)]
    assert missing == [], MOVED.format(f"{missing} of {name}")


@pytest.mark.parametrize("name", FIELDS)
def test_a_message_has_the_fields_that_are_set(name: str) -> None:
    assert set(FIELDS[name].split()) <= set(looked_up(name).DESCRIPTOR.fields_by_name), MOVED.format(name)


def test_flowers_word_that_no_answer_will_come_is_what_the_update_filter_takes_for_it() -> None:
    names = {code: name for name, code in vars(looked_up("flwr.common.constant.ErrorCode")).items() if name.isupper()}
    no_answer = {"MESSAGE_UNAVAILABLE", "REPLY_MESSAGE_UNAVAILABLE", "NODE_UNAVAILABLE"}
    assert {names[code] for code in NO_ANSWER} == no_answer, MOVED.format("ErrorCode")


def test_the_grid_keeps_its_client_and_repeater_where_we_reach_for_them() -> None:
    grid = looked_up("flwr.superlink.grid.HttpGrid")("127.0.0.1:1", insecure=True, token="t")  # noqa: S106 - none
    missing = [name for name in ("_addr", "_token", "_retry_invoker") if not hasattr(grid, name)]
    assert missing == [], MOVED.format(f"{missing} of HttpGrid")
    parameters = inspect.signature(grid._retry_invoker.invoke).parameters
    assert next(iter(parameters)) == "target", MOVED.format("RetryInvoker")


def test_a_repeater_of_ours_is_called_with_one_request_and_sees_what_httpx_raises() -> None:
    seen: list[BaseException] = []

    class Repeater:
        def invoke(self, call: Any) -> Any:
            try:
                return call()
            except httpx.HTTPStatusError as error:
                seen.append(error)
                raise

    client = looked_up("flwr.supercore.runtime.RuntimeHttpClient")("http://127.0.0.1:1", retry_invoker=Repeater())
    client._client._transport = httpx.MockTransport(lambda _request: httpx.Response(500))
    with pytest.raises(httpx.HTTPStatusError):
        client.GetNodes(looked_up("flwr.proto.runtime_pb2.GetNodesRequest")())
    assert len(seen) == 1, MOVED.format("the use of RuntimeHttpClient's retry_invoker")
    client.close()


def test_a_link_makes_no_call_that_the_gateway_does_not_know() -> None:
    calls, paths = FleetCalls(HandedOut(), lambda: 0), list[str]()
    client = looked_up("flwr.supernode.fleet_http_client.FleetHttpClient")("http://127.0.0.1:1")

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200)

    client._client.close()
    client._client = httpx.Client(transport=httpx.MockTransport(answer))
    for name in METHODS["flwr.supernode.fleet_http_client.FleetHttpClient"].split():
        if name != "close":
            (parameter,) = inspect.signature(getattr(client, name)).parameters.values()
            getattr(client, name)(parameter.annotation())
    assert len(paths) == 9 and all(map(calls.knows, paths)), MOVED.format(f"{paths}")
    client.close()


def test_a_redirect_is_not_followed_where_we_say_so() -> None:
    client = looked_up("flwr.supernode.fleet_http_client.FleetHttpClient")("http://127.0.0.1:1")
    assert hasattr(client._client, "follow_redirects"), MOVED.format("FleetHttpClient._client")
    client.close()


def test_nothing_internal_is_used_that_is_not_named_here() -> None:
    used = {name for folder in ("client", "server", "shared", "simulations") for name in _imported(ROOT / folder)}
    named = set(CALLED) | {f"{module}.{name}" for module, names in NAMED.items() for name in names.split()}
    assert used - named == set(), "name it here, with what is expected of it"
    assert named - used == set(), "it is not used any more"


def test_flower_is_pinned_to_the_minor_versions_that_were_looked_at() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    simulation = project["optional-dependencies"]["simulation"]
    stock = tomllib.loads((ROOT / "simulations/benchmarks/stock/flower/pyproject.toml").read_text())["project"]
    requirements = [Requirement(line) for place in (project, stock) for line in place["dependencies"]]
    pinned = [one.specifier for one in [*requirements, *map(Requirement, simulation)] if one.name == "flwr"]
    assert pinned == [SpecifierSet(">=1.41,<1.43")] * 3, "project, simulations, stock app"
    assert importlib.metadata.version("flwr") in pinned[0]


def _imported(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "flwr":
                found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module not in PUBLIC}
    return found
