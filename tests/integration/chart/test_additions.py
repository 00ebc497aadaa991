"""Values that add to the chart's objects, and values that are refused with a sentence."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.chart.helm import CHART, KUBERNETES, VALUES, Helm, HelmError, find

pytestmark = pytest.mark.chart

Json = dict[str, Any]
ADDITIONS = VALUES / "additions.yaml"
#: Helm lists kinds only if it asks a cluster. This one lacks the kinds of other projects.
CLUSTER = ("apps/v1/Deployment",)
MONITORING = "monitoring.coreos.com/v1"
GRAFANA = "grafana.integreatly.org/v1beta1"
#: Values that turn on a kind of another project, with the kind.
OPTIONAL = (
    ({"metrics": {"serviceMonitor": {"enabled": True}}}, f"{MONITORING}/ServiceMonitor"),
    ({"metrics": {"podMonitor": {"enabled": True}}}, f"{MONITORING}/PodMonitor"),
    ({"metrics": {"rules": {"enabled": True}}}, f"{MONITORING}/PrometheusRule"),
    ({"dashboards": {"grafanaOperator": {"enabled": True}}}, f"{GRAFANA}/GrafanaDashboard"),
)
optional = pytest.mark.parametrize(("values", "kind"), OPTIONAL, ids=[k for _, k in OPTIONAL])


def pod_of(objects: list[Json]) -> Json:
    spec: Json = find(objects, "Deployment", "selfemo")["spec"]["template"]["spec"]
    return spec


def merged(*values: Json) -> Json:
    """Return the values of several mappings, of which later ones win."""
    result: Json = {}
    for mapping in values:
        for key, value in mapping.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) else value
    return result


def test_common_labels_and_annotations_are_on_every_object(helm4: Helm) -> None:
    everything = {
        "commonLabels": {"team": "{{ .Release.Name }}-team", "grafana_dashboard": "0"},
        "commonAnnotations": {"example.org/release": "{{ .Release.Name }}"},
        "watchNamespaces": ["team-a"],
        "metrics": {"authorization": True},
        "dashboards": {"enabled": True},
    }
    objects = helm4.template(merged(everything, *(values for values, _ in OPTIONAL)))
    assert {"CustomResourceDefinition", "NetworkPolicy", "GrafanaDashboard", "Pod", "Role"} < {
        o["kind"] for o in objects
    }
    boards = {f"selfemo-{path.stem}" for path in (CHART / "files" / "dashboards").glob("*.json")}
    for document in objects:
        metadata, kind = document["metadata"], document["kind"]
        assert metadata["labels"]["team"] == "selfemo-team", kind
        assert metadata["annotations"]["example.org/release"] == "selfemo", kind
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm", kind
        sidecar = kind == "ConfigMap" and metadata["name"] in boards
        assert metadata["labels"]["grafana_dashboard"] == ("1" if sidecar else "0")
    template = find(objects, "Deployment", "selfemo")["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "selfemo-team"
    assert "annotations" not in template["metadata"]


def test_additions_to_the_operators_pod(helm4: Helm) -> None:
    accounts = {"jobs": {"serviceAccount": {"namespaces": ["research"]}}}
    objects = helm4.template(merged(yaml.safe_load(ADDITIONS.read_text()), accounts))
    plain = helm4.template(accounts)
    deployment = find(objects, "Deployment", "selfemo")["spec"]
    before = find(plain, "Deployment", "selfemo")["spec"]
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert deployment.pop("strategy") == rolling
    assert deployment.pop("revisionHistoryLimit") == 3
    assert before.pop("revisionHistoryLimit") == 10
    metadata = deployment["template"].pop("metadata")
    assert metadata["annotations"] == {"example.org/name": "selfemo"}
    assert metadata["labels"].pop("team") == "selfemo-team"
    assert before["template"].pop("metadata") == {"labels": metadata["labels"]}
    pod, plain_pod = pod_of(objects), pod_of(plain)
    container, proxy = pod["containers"]
    (plain_container,) = plain_pod["containers"]
    restricted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert proxy == {
        "name": "proxy",
        "image": "registry.example.org/proxy:1",
        "securityContext": restricted,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    plain_pod |= {
        "imagePullSecrets": [{"name": "mirror"}, {"name": "registry"}, {"name": "selfemo-own"}],
        "initContainers": [{**proxy, "name": "wait", "image": "registry.example.org/wait:1"}],
        "containers": [container, proxy],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["192.0.2.53"], "searches": ["selfemo-system.svc"]},
        "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["proxy.example.org"]}],
    }
    plain_pod["volumes"].append({"name": "ca", "configMap": {"name": "selfemo-ca"}})
    assert pod == plain_pod
    assert deployment == before
    arguments = plain_container["args"]
    arguments[arguments.index("--lease-duration-seconds=15")] = "--lease-duration-seconds=30"
    index = arguments.index("--concurrency=32")
    arguments.insert(index + 1, "--requests-per-second=50")
    arguments.append("--allow-host-access")
    plain_container["env"].append({"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"})
    plain_container["envFrom"] = [{"secretRef": {"name": "selfemo-proxy", "optional": True}}]
    mount = {"name": "ca", "mountPath": "/ca", "readOnly": True}
    plain_container["volumeMounts"].append(mount)
    plain_container["startupProbe"]["failureThreshold"] = 60
    plain_container["livenessProbe"]["terminationGracePeriodSeconds"] = 10
    plain_container["readinessProbe"]["initialDelaySeconds"] = 1
    assert container == plain_container


def test_the_test_pod_pulls_and_resolves_as_the_operator_does(helm4: Helm) -> None:
    objects = helm4.template(ADDITIONS)
    test, operator = find(objects, "Pod", "selfemo-test")["spec"], pod_of(objects)
    for key in ("imagePullSecrets", "dnsPolicy", "dnsConfig", "hostAliases"):
        assert test[key] == operator[key]


def test_the_service_has_annotations_and_families(helm4: Helm) -> None:
    service = find(helm4.template(ADDITIONS), "Service", "selfemo-metrics")
    annotations = {"example.org/scrape": "true", "example.org/release": "selfemo"}
    assert service["metadata"]["annotations"] == annotations
    assert service["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    assert service["spec"]["ipFamilies"] == ["IPv4"]
    plain = find(helm4.template(), "Service", "selfemo-metrics")
    assert plain["spec"].keys() == {"selector", "ports"}
    assert "annotations" not in plain["metadata"]


def test_extra_objects_are_objects_or_templates(helm4: Helm) -> None:
    objects = helm4.template(ADDITIONS)
    expected = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "selfemo-ca"}}
    assert find(objects, "ConfigMap", "selfemo-ca") == {
        **expected,
        "data": {"ca.crt": "certificate"},
    }
    for name in ("one", "two"):
        assert find(objects, "ConfigMap", name) == {**expected, "metadata": {"name": name}}


def test_the_namespace_can_be_replaced(helm4: Helm) -> None:
    everything = merged(
        {"namespaceOverride": "emo", "metrics": {"authorization": True, "tlsSecret": "tls"}},
        {"dashboards": {"enabled": True}},
        *(values for values, _ in OPTIONAL),
    )
    objects = helm4.template(everything)
    cluster_wide = ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
    namespaces = {o["metadata"].get("namespace") for o in objects if o["kind"] not in cluster_wide}
    assert namespaces == {"emo"}
    assert "selfemo-system" not in yaml.safe_dump_all(objects)
    assert "--lease-namespace=emo" in pod_of(objects)["containers"][0]["args"]


def test_monitors_have_all_settings_of_a_scrape(helm4: Helm) -> None:
    relabeling = {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
    drop = {"sourceLabels": ["__name__"], "regex": "python_.*", "action": "drop"}
    scrape = {
        "interval": "30s",
        "scrapeTimeout": "10s",
        "relabelings": [relabeling],
        "metricRelabelings": [drop],
    }
    monitor = {
        **scrape,
        "enabled": True,
        "namespace": "monitoring",
        "labels": {"release": "prometheus"},
        "annotations": {"example.org/name": "{{ .Release.Name }}"},
    }
    objects = helm4.template({"metrics": {"serviceMonitor": monitor, "podMonitor": monitor}})
    service_monitor = find(objects, "ServiceMonitor", "selfemo")
    pod_monitor = find(objects, "PodMonitor", "selfemo-jobs")
    for document in (service_monitor, pod_monitor):
        metadata = document["metadata"]
        assert metadata["namespace"] == "monitoring"
        assert metadata["labels"]["release"] == "prometheus"
        assert metadata["annotations"] == {"example.org/name": "selfemo"}
    assert service_monitor["spec"]["endpoints"] == [
        {"port": "metrics", "honorLabels": True, **scrape}
    ]
    assert service_monitor["spec"]["namespaceSelector"] == {"matchNames": ["selfemo-system"]}
    assert pod_monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", **scrape}]


@optional
def test_a_kind_that_the_cluster_lacks_is_refused(helm: Helm, values: Json, kind: str) -> None:
    with pytest.raises(HelmError, match=f"is on, but the cluster does not serve {kind}") as error:
        helm.template(values, apis=CLUSTER)
    assert "renderMode to SkipIfMissing" in str(error.value)


@optional
def test_a_kind_that_the_cluster_lacks_may_be_left_out(
    helm4: Helm, values: Json, kind: str
) -> None:
    version, _, name = kind.rpartition("/")

    def count(mode: str, *apis: str) -> int:
        objects = helm4.template({**values, "renderMode": mode}, apis=apis)
        return sum(o["kind"] == name and o["apiVersion"] == version for o in objects)

    number = count("AlwaysRender", *CLUSTER)
    assert number > 0
    assert count("SkipIfMissing", *CLUSTER) == 0
    assert count("SkipIfMissing", *CLUSTER, kind) == number
    assert count("FailIfMissing", *CLUSTER, kind) == number
    # without a cluster there is nothing to ask
    assert count("SkipIfMissing") == count("FailIfMissing") == number


def alerts_of(helm: Helm, **rules: Any) -> dict[str, Json]:
    objects = helm.template({"metrics": {"rules": {"enabled": True, **rules}}})
    return {
        rule["alert"]: rule
        for document in objects
        if document["kind"] == "PrometheusRule"
        for group in document["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def test_alerts_are_set_one_by_one(helm4: Helm) -> None:
    own = {"for": "2h", "severity": "page", "keepFiringFor": "5m"}
    changed = {"SelfemoEvolutionF1Regressed": {"enabled": False}, "SelfemoOperatorDown": own}
    expected = alerts_of(helm4)
    assert len(expected) > 10
    del expected["SelfemoEvolutionF1Regressed"]
    expected["SelfemoOperatorDown"] |= {"for": "2h", "keep_firing_for": "5m"}
    expected["SelfemoOperatorDown"]["labels"]["severity"] = "page"
    for rule in expected.values():
        rule["labels"]["team"] = "selfemo-team"
    labels = {"team": "{{ .Release.Name }}-team", "severity": "none"}
    assert alerts_of(helm4, alerts=changed, alertLabels=labels) == expected


def test_rules_are_those_of_the_files(helm4: Helm) -> None:
    objects = helm4.template({"metrics": {"rules": {"enabled": True, "namespace": "monitoring"}}})
    for path in sorted((CHART / "files" / "rules").glob("*.yaml")):
        rendered = find(objects, "PrometheusRule", f"selfemo-{path.stem}")
        # one operator that is scraped must not hide that another one is not
        own = 'absent(selfemo_operator_build_info{namespace="selfemo-system"})'
        text = path.read_text().replace("absent(selfemo_operator_build_info)", own)
        assert rendered["spec"] == yaml.safe_load(text)
        assert rendered["metadata"]["namespace"] == "monitoring"


def test_an_unknown_alert_is_refused(helm: Helm) -> None:
    values = {"metrics": {"rules": {"alerts": {"SelfemoOperatorDwn": {"enabled": False}}}}}
    with pytest.raises(HelmError, match=r"alerts\.SelfemoOperatorDwn: there is no alert") as error:
        helm.template(values)
    assert "SelfemoOperatorDown, " in str(error.value)


def test_dashboards_for_the_grafana_operator(helm4: Helm) -> None:
    objects = helm4.template({"dashboards": {"grafanaOperator": {"enabled": True}}})
    names = {path.stem for path in (CHART / "files" / "dashboards").glob("*.json")}
    resources = {o["metadata"]["name"]: o for o in objects if o["kind"] == "GrafanaDashboard"}
    assert {f"selfemo-{name}" for name in names} == resources.keys()
    board = (CHART / "files" / "dashboards" / "fleet.json").read_text()
    assert resources["selfemo-fleet"]["apiVersion"] == GRAFANA
    spec = {
        "instanceSelector": {"matchLabels": {"dashboards": "grafana"}},
        "allowCrossNamespaceImport": True,
        "json": board.rstrip("\n"),
    }
    assert resources["selfemo-fleet"]["spec"] == spec
    assert not [
        o for o in objects if o["kind"] == "ConfigMap" and "-fleet" in o["metadata"]["name"]
    ]
    more = {
        "enabled": True,
        "instanceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]},
        "allowCrossNamespaceImport": False,
        "folder": "selfemo",
        "resyncPeriod": "1h",
    }
    objects = helm4.template({"dashboards": {"grafanaOperator": more, "namespace": "grafana"}})
    rendered = find(objects, "GrafanaDashboard", "selfemo-fleet")
    assert rendered["metadata"]["namespace"] == "grafana"
    assert rendered["spec"] == {**spec, **{k: v for k, v in more.items() if k != "enabled"}}


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"dashboards": {"grafanaOperator": None}}, "dashboards.grafanaOperator"),
        ({"metrics": None}, "metrics"),
        ({"operator": {"leaseDurationSeconds": None}}, "operator.leaseDurationSeconds"),
    ],
    ids=str,
)
def test_the_values_of_an_older_chart_are_refused(helm4: Helm, values: Json, missing: str) -> None:
    """Null removes a default, so the value is missing as it is after ``--reuse-values``."""
    with pytest.raises(HelmError, match=f"the value {missing} is missing") as error:
        helm4.template(values)
    assert "use --reset-then-reuse-values" in str(error.value)


LABELS = {"app.kubernetes.io/name": "x"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"commonLabels": LABELS}, "commonLabels must not contain app.kubernetes.io/name: "),
        ({"commonLabels": {"app.kubernetes.io/instance": "x"}}, "app.kubernetes.io/instance: "),
        ({"commonLabels": {"app.kubernetes.io/managed-by": "x"}}, "app.kubernetes.io/managed-by"),
        ({"commonLabels": {"app.kubernetes.io/component": "x"}}, "app.kubernetes.io/component: "),
        ({"commonLabels": {"helm.sh/chart": "x"}}, "must not contain helm.sh/chart: "),
        ({"podLabels": LABELS}, "podLabels must not contain app.kubernetes.io/name: "),
        ({"dashboards": {"labels": LABELS}}, "dashboards.labels must not contain "),
        (
            {"metrics": {"serviceMonitor": {"labels": LABELS}}},
            "metrics.serviceMonitor.labels must not contain ",
        ),
        (
            {"commonLabels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "it would add the rights of the operator to a role of the cluster",
        ),
        ({"extraArgs": ["--concurrency=64"]}, "extraArgs must not contain --concurrency: "),
    ],
    ids=str,
)
def test_what_the_chart_sets_itself_is_refused(helm: Helm, values: Json, message: str) -> None:
    with pytest.raises(HelmError) as error:
        helm.template(values)
    assert message in str(error.value)


def test_a_release_with_a_number_as_its_name(helm4: Helm) -> None:
    arguments = ["template", "123", str(CHART), "--kube-version", KUBERNETES]
    objects = [o for o in yaml.safe_load_all(helm4.run(*arguments)) if o]
    selector = find(objects, "Deployment", "123-selfemo")["spec"]["selector"]["matchLabels"]
    assert selector["app.kubernetes.io/instance"] == "123"
    for document in objects:
        assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == "123"


def test_the_links_of_a_packaged_chart_work(helm4: Helm, tmp_path: Path) -> None:
    helm4.run("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("selfemo-*.tgz")
    with tarfile.open(package) as archive:
        archive.extractall(tmp_path, filter="data")
    files = ("README.md", ".helmignore", "Chart.yaml", "values.yaml", "values.schema.json")
    names = {path.name for path in (tmp_path / "selfemo").iterdir()}
    assert names == {*files, "files", "templates"}
    for page in (tmp_path / "selfemo").rglob("*.md"):
        for target in re.findall(r"\]\(([^()\s]+)\)", page.read_text()):
            path = target.partition("#")[0]
            assert not path or "://" in path or (page.parent / path).exists(), target
