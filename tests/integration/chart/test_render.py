"""The rendered chart: lint, types, Pod Security, rights, snapshots and values."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.crd import build_crd
from selfemo_api.spec import PodTemplateEntry
from selfemo_api.stages import Stage
from selfemo_operator.__main__ import main as operator
from selfemo_operator.controller.objects.names import purge_labels, stage_labels
from tests.integration.chart import snapshots
from tests.integration.chart.helm import CHART, VALUES, Helm, HelmError, find
from tests.integration.chart.kube_types import problems
from tests.integration.chart.restricted import violations
from tests.support import recorded

pytestmark = pytest.mark.chart

FILES = sorted(VALUES.glob("*.yaml"))
#: API groups of other projects: the official client has no types of them.
OTHERS = ("monitoring.coreos.com", "grafana.integreatly.org")
CLUSTER_WIDE = ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")

every_file = pytest.mark.parametrize("values", FILES, ids=lambda path: path.stem)


def pod_specs(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in objects:
        if document["kind"] == "Pod":
            yield document["spec"]
        elif "template" in (document.get("spec") or {}):
            yield document["spec"]["template"]["spec"]


def evolution_of_tests() -> EmotionEvolution:
    evolution = recorded.evolution()
    metadata = evolution.metadata.model_copy(update={"uid": "0" * 8})
    return evolution.model_copy(update={"metadata": metadata})


def rules(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in objects:
        if document["kind"] in ("Role", "ClusterRole"):
            yield from document["rules"]


@every_file
def test_helm_lint_finds_no_problem(helm: Helm, values: Path) -> None:
    helm.run("lint", "--strict", "--values", str(values), str(CHART))


@every_file
def test_the_rendered_objects_match_the_snapshot(helm: Helm, values: Path) -> None:
    default = snapshots.by_name(helm.template())
    if values.stem == "default":
        snapshots.check("default.yaml", snapshots.whole(default))
    else:
        texts = snapshots.by_name(helm.template(values))
        snapshots.check(f"{values.stem}.diff", snapshots.difference(default, texts))


def test_helm_3_renders_the_same_objects(helm3: Helm, helm4: Helm) -> None:
    values = VALUES / "additions.yaml"
    assert helm3.template(values) == helm4.template(values)
    helm3.run("lint", "--strict", "--values", str(values), str(CHART))


@every_file
def test_objects_have_kubernetes_types(helm4: Helm, values: Path) -> None:
    objects = helm4.template(values)
    checked = [o for o in objects if o["apiVersion"].partition("/")[0] not in OTHERS]
    assert [p for document in checked for p in problems(document)] == []


def test_the_type_check_finds_mistakes(helm4: Helm) -> None:
    deployment = find(helm4.template(), "Deployment", "selfemo")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["imagePullpolicy"] = "Always"
    container["ports"][0]["containerPort"] = "8080"
    del deployment["spec"]["selector"]
    fields = sorted(p.partition(":")[0].rpartition(".")[2] for p in problems(deployment))
    assert fields == ["containerPort", "imagePullpolicy", "selector"]


@every_file
def test_pods_are_restricted(helm4: Helm, values: Path) -> None:
    specs = list(pod_specs(helm4.template(values)))
    assert specs
    assert [v for spec in specs for v in violations(spec)] == []
    for spec in specs:
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


@pytest.mark.parametrize(
    "change",
    [
        {"hostNetwork": True},
        {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]},
        {"securityContext": {}},
        {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "Unconfined"}}},
        {"containers": [{"name": "c", "securityContext": {"privileged": True}}]},
        {"containers": [{"name": "c", "securityContext": {"runAsUser": 0}}]},
        {"containers": [{"name": "c"}]},
    ],
)
def test_the_restricted_check_finds_violations(helm4: Helm, change: dict[str, Any]) -> None:
    (operator,) = pod_specs([find(helm4.template(), "Deployment", "selfemo")])
    assert list(violations(operator)) == []
    assert list(violations({**operator, **change}))


@every_file
def test_rights_are_limited(helm4: Helm, values: Path) -> None:
    never = {"secrets", "pods/exec", "pods/log", "pods/attach", "pods/portforward", "nodes", "*"}
    for rule in rules(helm4.template(values)):
        assert not never & set(rule.get("resources", []))
        assert rule.get("nonResourceURLs", ["/metrics"]) == ["/metrics"]
        assert not {"*", "escalate", "bind", "impersonate"} & set(rule["verbs"])
        assert "*" not in rule.get("apiGroups", [])


def test_a_token_is_mounted_where_it_is_used(helm4: Helm) -> None:
    """No container has a token beside the image of a value, but for the operator's own."""
    objects = helm4.template(VALUES / "evolution.yaml")
    for document in objects:
        if document["kind"] == "ServiceAccount":
            assert document["automountServiceAccountToken"] is False
    (pod,) = (o["spec"] for o in objects if o["kind"] == "Pod")
    assert pod["automountServiceAccountToken"] is False
    tokens = {
        volume["name"]
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }
    with_token = [
        container["name"]
        for container in [*pod["containers"], *pod["initContainers"]]
        if tokens & {mount["name"] for mount in container["volumeMounts"]}
    ]
    assert with_token == ["test"]
    (test,) = pod["containers"]
    deployment = find(objects, "Deployment", "selfemo")
    assert test["image"] == deployment["spec"]["template"]["spec"]["containers"][0]["image"]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return bool(selector["matchLabels"].items() <= labels.items())


def admitted(policies: list[dict[str, Any]], pod: dict[str, str], peer: dict[str, str]) -> bool:
    """Return whether policies let a peer of the same namespace connect to a pod on any port."""
    own = [p["spec"] for p in policies if selects(p["spec"]["podSelector"], pod)]
    return not own or any(
        "ports" not in rule and selects(source["podSelector"], peer)
        for spec in own
        for rule in spec["ingress"]
        for source in rule["from"]
    )


def test_stage_pods_are_reached_by_the_nodes_of_a_training_alone(helm4: Helm) -> None:
    objects = helm4.template(VALUES / "scoped.yaml")
    policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
    assert {p["metadata"]["namespace"] for p in policies} == {"selfemo-system", "team-a", "team-b"}
    policies = [p for p in policies if p["metadata"]["namespace"] == "team-a"]
    labels = {stage: stage_labels(evolution_of_tests(), stage, 1) for stage in Stage}
    train, score = labels[Stage.TRAIN], labels[Stage.SCORE]
    assert admitted(policies, train, train)
    stranger = {"app": "web"}
    for peer in (score, stranger, {**train, "app.kubernetes.io/managed-by": "Helm"}):
        assert not admitted(policies, train, peer)
    for stage in set(Stage) - {Stage.TRAIN}:
        assert not admitted(policies, labels[stage], train)
        assert not admitted(policies, labels[stage], labels[stage])
    assert not admitted(policies, purge_labels(evolution_of_tests()), stranger)
    # pods that `kubectl selfemo serve` prints are not concerned
    assert admitted(policies, {"app.kubernetes.io/name": "selfemo-serve"}, stranger)
    assert all(p["spec"]["policyTypes"] == ["Ingress"] for p in policies)


def test_policies_of_stage_pods_can_be_turned_off_or_extended(helm4: Helm) -> None:
    scoped = {"watchNamespaces": ["team-a"]}
    off = helm4.template({**scoped, "jobs": {"networkPolicy": {"enabled": False}}})
    assert [o["metadata"]["name"] for o in off if o["kind"] == "NetworkPolicy"] == ["selfemo"]
    peers = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    rule = {"ports": [{"port": 15020, "protocol": "TCP"}]}
    more = {"networkPolicy": {"metricsFrom": peers, "extraIngress": [rule]}}
    metrics = {"podMonitor": {"enabled": True}}
    objects = helm4.template({**scoped, "jobs": more, "metrics": metrics})
    ingress = find(objects, "NetworkPolicy", "selfemo-jobs")["spec"]["ingress"]
    assert ingress == [{"ports": [{"port": 9464, "protocol": "TCP"}], "from": peers}, rule]
    known = {"jobs": {"serviceAccount": {"create": False, "namespaces": ["team-b"]}}}
    names = [o["metadata"]["name"] for o in helm4.template(known) if o["kind"] == "NetworkPolicy"]
    assert names == ["selfemo", "selfemo-jobs", "selfemo-jobs-train"]


def test_metrics_with_authorization_and_tls(helm4: Helm) -> None:
    objects = helm4.template(VALUES / "monitoring.yaml")
    (container,) = find(objects, "Deployment", "selfemo")["spec"]["template"]["spec"]["containers"]
    assert {"--metrics-authorization", "--metrics-tls-folder=/metrics-tls"} <= {*container["args"]}
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    assert mounts["/metrics-tls"]["readOnly"] is True
    granted = find(objects, "ClusterRole", "selfemo-metrics-authorization")["rules"]
    reviews = {(g, r, v) for x in granted for g in x["apiGroups"] for r in x["resources"]
               for v in x["verbs"]}  # fmt: skip
    assert reviews == {
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    }
    (endpoint,) = find(objects, "ServiceMonitor", "selfemo")["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == "selfemo-metrics.selfemo-system.svc"
    assert endpoint["bearerTokenFile"].endswith("/token")
    plain = helm4.template()
    assert not [o for o in plain if "metrics-" in o["metadata"]["name"] and "Role" in o["kind"]]


def test_a_scoped_release_has_no_cluster_wide_objects(helm4: Helm) -> None:
    objects = helm4.template(VALUES / "scoped.yaml")
    assert not [o["kind"] for o in objects if o["kind"] in CLUSTER_WIDE]
    places = {
        o["metadata"]["namespace"]
        for o in objects
        if o["kind"] == "Role" and o["metadata"]["name"] == "selfemo"
    }
    assert places == {"team-a", "team-b"}
    arguments = find(objects, "Deployment", "selfemo")["spec"]["template"]["spec"]["containers"][0]
    assert {"--namespace=team-a", "--namespace=team-b", "--jobs-service-account=selfemo-jobs"} < {
        *arguments["args"]
    }


@every_file
def test_the_operator_parses_its_arguments(helm4: Helm, values: Path) -> None:
    (deployment,) = (o for o in helm4.template(values) if o["kind"] == "Deployment")
    container, *_ = deployment["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "operator"
    program = typer.Typer()
    program.command()(operator)
    parsed = typer.main.get_command(program).make_context("operator", list(container["args"]))
    assert parsed.params["lease_name"] == deployment["metadata"]["name"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {
        "metrics": parsed.params["metrics_port"],
        "health": parsed.params["health_port"],
    }
    monitored = yaml.safe_load(values.read_text()) or {}
    expected_port = monitored.get("metrics", {}).get("podMonitor", {}).get("enabled", False)
    assert (parsed.params["jobs_metrics_port"] > 0) == expected_port, "the PodMonitor needs a port"


@every_file
def test_roles_are_bound_to_rendered_accounts(helm4: Helm, values: Path) -> None:
    objects = helm4.template(values)
    rendered = {
        (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
        for o in objects
        if o["kind"] in ("Role", "ClusterRole", "ServiceAccount")
    }
    for binding in objects:
        if binding["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            role, (account,) = binding["roleRef"], binding["subjects"]
            place = binding["metadata"].get("namespace")
            assert (role["kind"], place, role["name"]) in rendered
            assert ("ServiceAccount", account["namespace"], account["name"]) in rendered


def test_the_crd_is_the_generated_crd(helm4: Helm) -> None:
    name = build_crd()["metadata"]["name"]
    crd = find(helm4.template(), "CustomResourceDefinition", name)
    assert crd["spec"] == build_crd()["spec"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    loose = find(helm4.template({"crds": {"keep": False}}), "CustomResourceDefinition", name)
    assert "annotations" not in loose["metadata"]
    objects = helm4.template({"crds": {"install": False}})
    assert "CustomResourceDefinition" not in {o["kind"] for o in objects}


def test_rules_and_dashboards_are_rendered_from_files(helm4: Helm, tmp_path: Path) -> None:
    chart = tmp_path / "selfemo"
    shutil.copytree(CHART, chart)
    groups = (
        "groups:\n  - name: g\n    rules:\n      - alert: A\n        expr: up == 0\n"
        "        annotations: {summary: '{{ $labels.namespace }} `is` down'}\n"
    )
    board = '{\n  "title": "{{ stage }}",\n  "panels": ["`a`"]\n}\n'
    (chart / "files" / "rules").mkdir(exist_ok=True)
    (chart / "files" / "dashboards").mkdir(exist_ok=True)
    (chart / "files" / "rules" / "one.yaml").write_text(groups)
    (chart / "files" / "dashboards" / "two.json").write_text(board)
    values = VALUES / "monitoring.yaml"
    objects = helm4.template(values, chart)
    assert find(objects, "PrometheusRule", "selfemo-one")["spec"] == yaml.safe_load(groups)
    rendered = find(objects, "ConfigMap", "selfemo-two")
    assert rendered["data"] == {"two.json": board.rstrip("\n")}
    assert rendered["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert rendered["metadata"]["annotations"] == {"grafana_folder": "selfemo"}
    kinds = [o["kind"] for o in helm4.template(None, chart)]
    assert "PrometheusRule" not in kinds


def test_alerts_link_to_the_configured_urls(helm4: Helm) -> None:
    places = {
        "runbookUrl": "https://docs.example.org/rb/",
        "grafanaUrl": "https://grafana.example.org",
    }
    expected_prefixes = {
        False: ("docs/runbooks/", "/d/"),
        True: (places["runbookUrl"], f"{places['grafanaUrl']}/d/"),
    }
    for given, (runbooks, boards) in expected_prefixes.items():
        rules = {"enabled": True, **(places if given else {})}
        objects = helm4.template({"metrics": {"rules": rules}})
        annotations = [
            rule["annotations"]
            for o in objects
            if o["kind"] == "PrometheusRule"
            for group in o["spec"]["groups"]
            for rule in group["rules"]
            if "alert" in rule
        ]
        assert annotations
        assert all(a["runbook_url"].startswith(f"{runbooks}Selfemo") for a in annotations)
        assert all(a["dashboard_url"].startswith(f"{boards}selfemo-") for a in annotations)


def test_the_template_of_the_test_applies_to_all_pods_of_its_evolution(helm4: Helm) -> None:
    template = yaml.safe_load((VALUES / "evolution.yaml").read_text())["test"]["podTemplate"]
    objects = helm4.template(VALUES / "evolution.yaml")
    text = find(objects, "ConfigMap", "selfemo-test")["data"]["evolution.yaml"]
    entries = yaml.safe_load(text)["spec"]["podTemplate"]
    assert entries == [{"template": template}]
    assert PodTemplateEntry.model_validate(entries[0]).stages is None
    plain = find(helm4.template(), "ConfigMap", "selfemo-test")["data"]["evolution.yaml"]
    assert "podTemplate" not in yaml.safe_load(plain)["spec"]


OPENSHIFT = ("security.openshift.io/v1",)


@pytest.mark.parametrize(
    ("setting", "apis", "user"),
    [
        (None, (), 65532),
        (None, OPENSHIFT, 0),
        ("Auto", OPENSHIFT, 0),
        ("Platform", (), 0),
        (1_000_670_000, (), 1_000_670_000),
        (65532, OPENSHIFT, 65532),
    ],
)
def test_the_ids_of_stage_pods(helm4: Helm, setting: Any, apis: tuple[str, ...], user: int) -> None:
    """OpenShift refuses pods with an ID that is not one of the namespace's."""
    values = yaml.safe_load((VALUES / "evolution.yaml").read_text())
    if setting is not None:
        values["jobs"] = {"podSecurity": {"runAsUser": setting}}
    objects = helm4.template(values, apis=apis)
    (operator,) = find(objects, "Deployment", "selfemo")["spec"]["template"]["spec"]["containers"]
    assert f"--jobs-run-as-user={user}" in operator["args"]
    specs = list(pod_specs(objects))
    assert [v for spec in specs for v in violations(spec)] == []
    contexts = [
        context
        for spec in specs
        for context in (
            spec["securityContext"],
            *(c["securityContext"] for c in [*spec["containers"], *spec.get("initContainers", [])]),
        )
    ]
    # the pod that makes the model of the test's evolution runs as stage pods do
    assert [c["runAsUser"] for c in contexts if "runAsUser" in c] == ([user] if user else [])


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": "two"},
        {"replicas": -1},
        {"replica": 1},
        {"image": {"digest": "sha256:12"}},
        {"image": {"pullPolicy": "Sometimes"}},
        {"watchNamespaces": "team-a"},
        {"watchNamespaces": ["Team"]},
        {"operator": {"logLevel": "loud"}},
        {"operator": {"concurrency": 0}},
        {"jobs": {"podSecurity": {"runAsUser": 0}}},
        {"jobs": {"podSecurity": {"runAsUser": "65532"}}},
        {"networkPolicy": {"apiServerPorts": []}},
        {"metrics": {"serviceMonitor": {"enable": True}}},
        {"commonLabels": {"a": 1}},
        {"commonAnnotations": {"a": True}},
        {"global": {"imagePullSecrets": [1]}},
        {"extraObjects": [1]},
        {"renderMode": "Never"},
        {"operator": {"leaseDurationSeconds": 5}},
        {"operator": {"requestsPerSecond": -1}},
        {"extraArgs": [1]},
        {"envFrom": ["secret"]},
        {"dnsPolicy": "Sometimes"},
        {"service": {"ipFamilyPolicy": "Both"}},
        {"service": {"ipFamilies": ["IPv5"]}},
        {"startupProbe": {"httpGet": {}}},
        {"livenessProbe": {"periodSeconds": "often"}},
        {"revisionHistoryLimit": -1},
        {"metrics": {"serviceMonitor": {"interval": "often"}}},
        {"metrics": {"podMonitor": {"scrapeTimeout": "10"}}},
        {"metrics": {"rules": {"alerts": {"SelfemoOperatorDown": {"for": "long"}}}}},
        {"metrics": {"rules": {"alerts": {"SelfemoOperatorDown": {"on": True}}}}},
        {"dashboards": {"grafanaOperator": {"enable": True}}},
        {"test": {"storage": {"endpoint": "http://s3"}}},
        {"serviceAccount": {"create": False}},
    ],
    ids=str,
)
def test_invalid_values_are_rejected(helm: Helm, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError) as error:
        helm.template(values)
    *_, last = (key for key in re.findall(r"'(\w+)':", str(values)))
    assert last in str(error.value) or "test.storage.uri" in str(error.value)


def test_the_name_of_objects_can_be_set(helm4: Helm) -> None:
    names = {o["metadata"]["name"] for o in helm4.template({"fullnameOverride": "emo"})}
    assert [n for n in names if "selfemo" in n] == ["emotionevolutions.selfemo.dev"]
    assert {"emo", "emo-metrics", "emo-lease", "emo-view", "emo-test"} < names
    longest = helm4.template({"fullnameOverride": "n" * 80})
    assert all(len(o["metadata"]["name"]) <= 63 for o in longest)


def test_a_parent_chart_may_set_more_values(helm4: Helm) -> None:
    helm4.template({"enabled": True, "global": {"theirs": 1}})


def test_the_notes_contain_the_next_steps(helm4: Helm) -> None:
    install = ["install", "selfemo", str(CHART), "--namespace", "emo", "--dry-run=client"]
    plain = helm4.run(*install)
    assert "no registry is set" in plain
    assert "helm test selfemo -n emo " in plain
    assert "no NetworkPolicy protects stage pods" in plain
    assert "localhost/selfemo-jobs:" in plain
    mirror = ["--set", "global.imageRegistry=mirror.example.org", "--set", "crds.install=false"]
    notes = helm4.run(*install, *mirror).rpartition("NOTES:")[2]
    assert "no registry is set" not in notes
    assert "crds.install is off" in notes
    known = helm4.run(*install, "--set", "watchNamespaces={emo}")
    assert "no NetworkPolicy protects" not in known
    assert "helm rollback" not in plain  # there is nothing before an installation
