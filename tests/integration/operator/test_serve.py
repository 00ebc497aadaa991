"""What `kubectl selfemo serve` prints, at a real API server, and following a promotion there."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfemo_operator.cli.serve_follow import follow
from selfemo_operator.cli.serve_manifests import ServeOptions, serve_manifests
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.settings import JobSettings
from tests.integration.operator.api import wait_for
from tests.unit.operator.cli.test_serve_manifests import RICH, with_best
from tests.unit.operator.controller.kube_objects import evolution_of

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
DRY_RUN = "?dryRun=All&fieldValidation=Strict"
SETTINGS = JobSettings(image="registry/selfemo-jobs:1")
FOLLOWED = ServeOptions(follow_image="registry/selfemo-operator:1", api_key_secret="keys")
PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "CronJob": "/apis/batch/v1/namespaces/{}/cronjobs",
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices",
}


def objects_of(namespace: str, options: ServeOptions, **spec: Any) -> list[Json]:
    evolution = with_best(evolution_of(**spec), 2, 2)
    metadata = evolution.metadata.model_copy(update={"namespace": namespace})
    return serve_manifests(evolution.model_copy(update={"metadata": metadata}), SETTINGS, options)


def create(kube: KubeClient, namespace: str, document: Json, query: str = "") -> Json:
    return kube.create(PATHS[document["kind"]].format(namespace) + query, document)


def dry_run_pod(kube: KubeClient, namespace: str, template: Json) -> None:
    """Let the server admit a pod, without the account that it names."""
    template = copy.deepcopy(template)
    template["spec"].pop("serviceAccountName", None)
    metadata = {"name": "pod", "namespace": namespace, **template["metadata"]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kube.create(names.core_path(namespace, "pods") + DRY_RUN, body)


@pytest.mark.parametrize("spec", [{}, RICH])
def test_the_api_server_accepts_all_objects(kube: KubeClient, namespace: str, spec: Json) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": label}})
    objects = objects_of(namespace, FOLLOWED, **spec)
    for document in objects:
        create(kube, namespace, document, DRY_RUN)
    dry_run_pod(kube, namespace, objects[0]["spec"]["template"])
    dry_run_pod(kube, namespace, objects[-1]["spec"]["jobTemplate"]["spec"]["template"])


def test_an_inference_service_fits_the_crd_of_kserve(kube: KubeClient, namespace: str) -> None:
    file = os.environ.get("SELFEMO_TEST_KSERVE_CRD")
    if not file:
        pytest.skip("SELFEMO_TEST_KSERVE_CRD is not set: config/crd/full of KServe")
    crd = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    crd["spec"].pop("conversion", None)
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    created = kube.create(crds, crd)["metadata"]
    try:
        options = ServeOptions(kserve=True, replicas=2, api_key_secret="keys")
        (document,) = objects_of(namespace, options, **RICH)

        def accepted() -> bool:
            try:
                create(kube, namespace, document, DRY_RUN)
            except ApiError as error:
                assert error.status == 404, error
                return False
            return True

        wait_for(accepted, "the CRD to be served")
        document["spec"]["predictor"]["unknown"] = 1
        with pytest.raises(ApiError, match="unknown"):
            create(kube, namespace, document, DRY_RUN)
    finally:
        kube.delete(f"{crds}/{created['name']}", created["uid"])


def test_following_a_promotion_has_the_rights_that_it_needs(
    kube: KubeClient, namespace: str
) -> None:
    for document in objects_of(namespace, FOLLOWED)[2:5]:
        create(kube, namespace, document)
    user = f"system:serviceaccount:{namespace}:demo-serve-follow"

    def allowed(verb: str, group: str, resource: str, name: str = "") -> bool:
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {**attributes, "name": name}},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return bool(kube.create(path, review)["status"]["allowed"])

    wait_for(lambda: allowed("get", "apps", "deployments", "demo-serve"), "the Role")
    assert allowed("patch", "apps", "deployments", "demo-serve")
    assert allowed("get", "selfemo.dev", "emotionevolutions", "demo")
    for attributes in [
        ("patch", "selfemo.dev", "emotionevolutions", "demo"),
        ("list", "selfemo.dev", "emotionevolutions"),
        ("patch", "apps", "deployments", "other"),
        ("delete", "apps", "deployments", "demo-serve"),
        ("get", "", "secrets", "keys"),
        ("list", "", "pods"),
    ]:
        assert not allowed(*attributes), attributes


def test_follow(kube: KubeClient, namespace: str, evolutions: Any) -> None:
    evolutions.create("demo", suspend=True)
    deployment = create(kube, namespace, objects_of(namespace, FOLLOWED)[0])
    key, path = (namespace, "demo"), PATHS["Deployment"].format(namespace) + "/demo-serve"
    assert follow(kube, key, kserve=False) == "no new best model has been published"

    status: Json = {"best": {"generation": 2, "f1": 0.4, "modelUri": "file:///model"}}
    status["stages"] = [{"stage": "Publish", "generation": 2, "runs": 3}]
    kube.patch(names.evolution_path(key) + "/status", {"status": status})
    assert follow(kube, key, kserve=False) == "generation 2 is served"
    assert kube.get(path)["metadata"]["generation"] == deployment["metadata"]["generation"]

    status["best"]["generation"] = status["stages"][0]["generation"] = 3
    kube.patch(names.evolution_path(key) + "/status", {"status": status})
    assert follow(kube, key, kserve=False).endswith("changes to generation 3")
    changed = kube.get(path)
    assert changed["metadata"]["generation"] == deployment["metadata"]["generation"] + 1
    pod = changed["spec"]["template"]
    assert pod["metadata"]["annotations"] == {"selfemo.dev/generation": "003"}
    assert pod["spec"] == deployment["spec"]["template"]["spec"]
    assert follow(kube, key, kserve=False) == "generation 3 is served"
    kube.delete(path, deployment["metadata"]["uid"])
