"""What `helm test` checks: a ready operator, a served CRD, admission, and (with storage) a run.

Runs in the operator's image. Prints one line for each check; the first that fails ends it.
"""

import copy
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config

GROUP, VERSION, KIND, PLURAL = (
    "selfemo.dev",
    "v1alpha1",
    "EmotionEvolution",
    "emotionevolutions",
)
#: Seconds for a Deployment that was just installed to get ready; a pull of the image included.
READY_SECONDS = 300
INVALID = 422
NOT_FOUND = 404


def operator_is_ready() -> str:
    """Wait for one ready replica."""
    namespace, name = os.environ["TEST_DEPLOYMENT"].split("/")
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        deployment = client.AppsV1Api().read_namespaced_deployment(name, namespace)
        ready = (deployment.status and deployment.status.ready_replicas) or 0
        if ready:
            break
        time.sleep(2)
    if not ready:
        sys.exit(f"FAILED: the operator has no ready replica: kubectl -n {namespace} get pods")
    return f"ready replicas: {ready}"


def crd_is_served() -> str:
    """Look the resource up in the API server's discovery."""
    try:
        served = client.CustomObjectsApi().get_api_resources(GROUP, VERSION).resources
    except client.ApiException as error:
        if error.status != NOT_FOUND:
            raise
        served = []
    if KIND not in {resource.kind for resource in served}:
        sys.exit(f"FAILED: {GROUP}/{VERSION} does not serve {KIND}: is the CRD installed?")
    return f"{GROUP}/{VERSION} serves {KIND}"


def good_is_admitted(evolution: dict[str, Any]) -> str:
    """Have the API server check the evolution without storing it."""
    create(evolution, dry_run="All")
    return "admitted (dry run)"


def bad_is_refused(evolution: dict[str, Any]) -> str:
    """Break a rule of the CRD; the answer must name it."""
    bad = copy.deepcopy(evolution)
    bad["spec"]["training"]["batchSize"] = bad["spec"]["selfPlay"]["groupSize"] + 1
    try:
        create(bad, dry_run="All")
    except client.ApiException as error:
        if error.status == INVALID and "batchSize" in (error.body or ""):
            return "refused, with the field's name"
        raise
    sys.exit("FAILED: a batchSize that breaks groups was admitted: is the CRD this chart's?")


def evolution_runs(evolution: dict[str, Any]) -> str:
    """Run the evolution to its end, and delete it where that was good."""
    delete(evolution)  # what a failed test left
    create(evolution)
    last = ""
    deadline = time.monotonic() + float(os.environ["TEST_TIMEOUT"])
    while time.monotonic() < deadline:
        status = read(evolution).get("status", {})
        now = f"generation {status.get('generation', 0)} {status.get('stage', '')}"
        if now != last:
            print(f"  {now}", flush=True)
            last = now
        conditions = {c["type"]: c for c in status.get("conditions", [])}
        end = conditions.get("Succeeded", {})
        if end.get("status") == "True":
            delete(evolution)
            return f"{end['reason']}: {end.get('message', '')}"
        if end.get("status") == "False":
            sys.exit(f"FAILED: {end['reason']}: {end.get('message', '')}\n{where(evolution)}")
        time.sleep(2)
    sys.exit(f"FAILED: no end after {os.environ['TEST_TIMEOUT']} s, at {last}\n{where(evolution)}")


def create(evolution: dict[str, Any], dry_run: str | None = None) -> None:
    """Create the evolution."""
    namespace = evolution["metadata"]["namespace"]
    client.CustomObjectsApi().create_namespaced_custom_object(
        GROUP, VERSION, namespace, PLURAL, evolution, dry_run=dry_run
    )


def read(evolution: dict[str, Any]) -> dict[str, Any]:
    """Return the evolution as it is now."""
    name, namespace = evolution["metadata"]["name"], evolution["metadata"]["namespace"]
    api = client.CustomObjectsApi()
    found: Any = api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
    return dict(found)


def delete(evolution: dict[str, Any]) -> None:
    """Delete the evolution and wait until it is gone; its Jobs are garbage-collected."""
    name, namespace = evolution["metadata"]["name"], evolution["metadata"]["namespace"]
    api = client.CustomObjectsApi()
    try:
        api.delete_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
        while True:
            read(evolution)
            time.sleep(1)
    except client.ApiException as error:
        if error.status != NOT_FOUND:
            raise


def where(evolution: dict[str, Any]) -> str:
    """Return the command that shows more; a failed evolution stays."""
    name, namespace = evolution["metadata"]["name"], evolution["metadata"]["namespace"]
    return f"it stays: kubectl -n {namespace} describe emotionevolution {name}"


def main() -> None:
    """Run the checks in order."""
    config.load_incluster_config()  # type: ignore[no-untyped-call]
    evolution = yaml.safe_load((Path(__file__).parent / "evolution.yaml").read_text())
    checks: list[tuple[str, Callable[[], str]]] = [
        ("operator", operator_is_ready),
        ("CRD", crd_is_served),
        ("a good evolution", lambda: good_is_admitted(evolution)),
        ("a bad evolution", lambda: bad_is_refused(evolution)),
    ]
    if os.environ["TEST_RUN"] == "yes":
        checks.append(("a tiny evolution", lambda: evolution_runs(evolution)))
    for name, check in checks:
        print(f"{name}: {check()}", flush=True)
    if os.environ["TEST_RUN"] != "yes":
        print("no evolution was run: give test.storage for that")


if __name__ == "__main__":
    main()
