"""Charts for Kubernetes, rendered and linted: the wall around the vault stands in them, and nothing has two writers."""

from collections.abc import Callable, Iterator
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
