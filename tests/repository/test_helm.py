"""Charts for Kubernetes, rendered and linted: the wall around the vault stands in them, and nothing has two writers."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow  # loads a whole Helm; `make test-all` installs it
CHARTS = ROOT / "docker" / "helm"
NODE: dict[str, Any] = {
    "settings": {"existingConfigMap": "st-mary"},
    "records": {"existingClaim": "ward"},
    "models": {"existingClaim": "models"},
    "server": {"cidr": "203.0.113.7/32"},
}
VALUES: dict[str, dict[str, Any]] = {
    "fedvault-server": {"host": "fl.example.org", "settings": {"existingSecret": "toml"}},
    "fedvault-node": NODE,
}
Documents = list[dict[str, Any]]


@pytest.fixture(scope="module")
def helm() -> Any:
    return pytest.importorskip("helm_python.chart", reason="helm-python-sdk is not here; `make test-all` installs it")


@pytest.fixture(scope="module")
def render(helm: Any) -> Callable[..., Documents]:
    def rendered(chart: str, **changes: Any) -> Documents:
        with helm.Chart.load(str(CHARTS / chart)) as loaded:
            files = loaded.render(values=VALUES[chart] | changes, name="demo")
        return [one for text in files.values() for one in yaml.safe_load_all(text) if one]

    return rendered


def pods(documents: Documents) -> Iterator[dict[str, Any]]:
    for one in documents:
        if one["kind"] in ("Deployment", "StatefulSet"):
            assert one["spec"]["replicas"] == 1
            assert one["spec"].get("strategy", {"type": "Recreate"}) == {"type": "Recreate"}
            yield one["spec"]["template"]["spec"] | {"labels": one["spec"]["template"]["metadata"]["labels"]}


def by_name(containers: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (container,) = [one for one in containers if one["name"] == name]
    return container


def policy_of(documents: Documents, labels: dict[str, str]) -> dict[str, Any]:
    (policy,) = [
        one["spec"]
        for one in documents
        if one["kind"] == "NetworkPolicy" and one["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    ]
    return policy


@pytest.mark.parametrize("chart", VALUES)
def test_a_chart_is_clean_and_its_pods_have_no_token_no_capability_and_no_root(
    helm: Any, render: Callable[..., Documents], chart: str
) -> None:
    report = helm.lint(str(CHARTS / chart), values=VALUES[chart])
    assert report["errors"] == [] and all(one["severity"] < 2 for one in report["messages"]), report
    for pod in pods(render(chart)):
        assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
        assert all("readinessProbe" in container for container in pod["containers"])
        assert all("limits" in one["resources"] for one in [*pod["containers"], *pod["initContainers"]])


def test_the_vault_has_no_network_and_the_link_no_record(render: Callable[..., Documents]) -> None:
    documents = render("fedvault-node")
    by_half = {pod["labels"]["half"]: pod for pod in pods(documents)}
    vault, link = by_half["vault"], by_half["link"]
    assert policy_of(documents, vault["labels"]) | {"podSelector": ""} == {
        "podSelector": "",
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [],
    }
    out = policy_of(documents, link["labels"])["egress"]
    assert out[0] == {
        "to": [{"ipBlock": {"cidr": "203.0.113.7/32"}}],
        "ports": [{"protocol": "TCP", "port": 8443}],
    }
    assert {port["port"] for rule in out[1:] for port in rule["ports"]} == {53}
    mounted = {half: {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} for half, pod in by_half.items()}
    assert mounted["link"] == {"settings", "socket", "link", "tmp"}
    assert mounted["vault"] == {"settings", "records", "models", "home", "socket", "ledger-copy", "tmp"}
    assert not any("subPath" in mount for mount in by_name(vault["containers"], "vault")["volumeMounts"][:3]), (
        "what is mounted as a file, or by a path, stays the old one when settings change"
    )
    read_only = {mount["name"] for mount in vault["containers"][0]["volumeMounts"] if mount.get("readOnly")}
    assert read_only == {"settings", "records", "models"}
    users = {half: pod["securityContext"]["runAsUser"] for half, pod in by_half.items()}
    assert users == {"vault": 10011, "link": 10012}, "as in the image"


def test_ledger_and_store_are_mounted_by_one_pod_and_outlive_the_chart(render: Callable[..., Documents]) -> None:
    node, server = render("fedvault-node"), render("fedvault-server")
    sets = [one["spec"] for one in node if one["kind"] == "StatefulSet"]
    claims = {claim["metadata"]["name"]: claim["spec"] for one in sets for claim in one["volumeClaimTemplates"]}
    assert {name: claim["accessModes"] for name, claim in claims.items()} == {
        name: ["ReadWriteOncePod"] for name in ("home", "ledger-copy", "link")
    }
    kept = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert all(one["persistentVolumeClaimRetentionPolicy"] == kept for one in sets)
    (store,) = [one for one in server if one["kind"] == "PersistentVolumeClaim"]
    assert store["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert store["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


USES_ITS_FOLDERS = """
import sys
from pathlib import Path
from client.vault.service.grpc_service import serving_on
from shared.files import private_folder
volumes, half = Path(sys.argv[1]), sys.argv[2]
own = {"vault": ["home", "ledger-copy"], "link": ["link"], "server": ["home"]}[half]
for name in own:
    private_folder(volumes / name / "own")
    (volumes / name / "own" / "written").write_text("")
socket = volumes / "socket" / "own" / "sock"
if half == "vault":
    with serving_on(socket, lambda _: None, group=10010):
        pass
if half == "link":
    list(socket.parent.iterdir())
"""


def new_volume(path: Path, group: int) -> None:
    """As Kubernetes hands a block volume to a pod with this fsGroup."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, 0, group)
    path.chmod(0o2775)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be the charts' users")
def test_each_process_owns_its_folder_in_a_new_volume_of_roots(
    render: Callable[..., Documents],
) -> None:
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        place.chmod(0o755)
        for chart in VALUES:
            for pod in sorted(pods(render(chart)), key=lambda pod: str(pod["labels"].get("half")), reverse=True):
                uses_its_folders(pod, place / chart)
    finally:
        shutil.rmtree(place)


def uses_its_folders(pod: dict[str, Any], volumes: Path) -> None:
    """Run a pod's first container, then what its process does with its folders, as its user."""
    security, folders = pod["securityContext"], by_name(pod["initContainers"], "folders")
    for mount in folders["volumeMounts"]:
        new_volume(volumes / mount["name"], security["fsGroup"])
    user, group = str(security["runAsUser"]), str(security["runAsGroup"])
    as_user = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--bounding-set=-all"]
    script = folders["command"][-1].replace("/volumes/", f"{volumes}/")
    subprocess.run([*as_user, *folders["command"][:-1], script], check=True, timeout=60)
    half = pod["labels"].get("half", "server")
    code = [sys.executable, "-c", USES_ITS_FOLDERS, str(volumes), half]
    subprocess.run([*as_user, *code], check=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)})
    for mount in by_name(pod["containers"], half)["volumeMounts"]:
        if mount["name"] != "settings" and "subPath" in mount:
            assert mount["subPath"] == "own" and (volumes / mount["name"] / "own").is_dir()


def test_metrics_are_open_to_one_namespace_and_only_if_asked_for(render: Callable[..., Documents]) -> None:
    closed, opened = (render("fedvault-server", metrics={"enabled": on, "namespace": "watch"}) for on in (False, True))
    labels = {"app.kubernetes.io/name": "fedvault-server", "app.kubernetes.io/instance": "demo"}
    (gateway,) = policy_of(closed, labels)["ingress"]
    assert gateway == {"ports": [{"protocol": "TCP", "port": "gateway"}]}
    assert policy_of(opened, labels)["ingress"] == [
        gateway,
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watch"}}}],
            "ports": [{"protocol": "TCP", "port": "metrics"}],
        },
    ]
    assert "--metrics-listen" in yaml.safe_dump(opened) and "--metrics-listen" not in yaml.safe_dump(closed)


def test_a_pod_for_maintenance_starts_nothing(render: Callable[..., Documents]) -> None:
    (pod,) = pods(render("fedvault-server", maintenance=True))
    assert [one["name"] for one in pod["initContainers"]] == ["folders"]
    assert "sleep infinity" in by_name(pod["containers"], "server")["command"][-1]


def test_secrets_are_named_and_never_written(render: Callable[..., Documents]) -> None:
    documents = [*render("fedvault-server"), *render("fedvault-node")]
    assert not [one for one in documents if one["kind"] in ("Secret", "ConfigMap")]
    (server,) = pods(render("fedvault-server"))
    assert {"secretName": "toml", "defaultMode": 0o440} in [volume.get("secret") for volume in server["volumes"]]


@pytest.mark.parametrize(
    ("chart", "changes"),
    [
        ("fedvault-server", {"host": ""}),
        ("fedvault-server", {"replicaCount": 2}),
        ("fedvault-server", {"service": {"type": "NodePort"}}),
        ("fedvault-server", {"service": {"type": "LoadBalancer", "port": 443}}),
        ("fedvault-node", {"replicaCount": 2}),
        ("fedvault-node", {"records": {"existingClaim": ""}}),
        ("fedvault-node", {"server": {"cidr": "fl.example.org"}}),
    ],
)
def test_values_that_would_start_something_else_are_refused(
    render: Callable[..., Documents], chart: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(Exception, match=r"(?i)schema|values"):
        render(chart, **changes)
