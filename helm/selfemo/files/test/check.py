"""The checks of `helm test`: a ready operator, a served CRD, admission, and (with storage) a run.

The script runs in the operator's image. It prints one line for each check, and ends at the first
check that fails.
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
#: Seconds in which a new Deployment must become ready, including the pull of the image.
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
    """Find the resource in the API server's discovery."""
    try:
        served = client.CustomObjectsApi().get_api_resources(GROUP, VERSION).resources
    except client.ApiException as error:
        if error.status != NOT_FOUND:
            raise
        served = []
    if KIND not in {resource.kind for resource in served}:
        sys.exit(f"FAILED: {GROUP}/{VERSION} does not serve {KIND}: is the CRD installed?")
    return f"{GROUP}/{VERSION} serves {KIND}"


def valid_is_admitted(evolution: dict[str, Any]) -> str:
    """Let the API server validate the evolution without storing it."""
    create(evolution, dry_run="All")
    return "admitted (dry run)"


def invalid_is_rejected(evolution: dict[str, Any]) -> str:
    """Violate a rule of the CRD; the error must name the field."""
    invalid = copy.deepcopy(evolution)
    invalid["spec"]["dataset"]["labels"].append(invalid["spec"]["dataset"]["labels"][0])
    try:
        create(invalid, dry_run="All")
    except client.ApiException as error:
        if error.status == INVALID and "spec.dataset" in (error.body or ""):
            return "rejected, with the field's name"
        raise
    sys.exit("FAILED: a label set with a label twice was admitted: is the CRD that of this chart?")


def evolution_runs(evolution: dict[str, Any]) -> str:
    """Run the evolution to its end, and delete it if it succeeds."""
    delete(evolution)  # a failed test leaves one behind
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
            sys.exit(f"FAILED: {end['reason']}: {end.get('message', '')}\n{next_step(evolution)}")
        time.sleep(2)
    seconds = os.environ["TEST_TIMEOUT"]
    sys.exit(f"FAILED: not finished after {seconds} s, at {last}\n{next_step(evolution)}")


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
    current: Any = api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
    return dict(current)


def delete(evolution: dict[str, Any]) -> None:
    """Delete the evolution and wait until it is gone. Its Jobs are garbage-collected."""
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


def next_step(evolution: dict[str, Any]) -> str:
    """Return the command that shows the failed evolution, which is not deleted."""
    name, namespace = evolution["metadata"]["name"], evolution["metadata"]["namespace"]
    return f"see: kubectl -n {namespace} describe emotionevolution {name}"


def main() -> None:
    """Run the checks in order."""
    config.load_incluster_config()  # type: ignore[no-untyped-call]
    evolution = yaml.safe_load((Path(__file__).parent / "evolution.yaml").read_text())
    checks: list[tuple[str, Callable[[], str]]] = [
        ("operator", operator_is_ready),
        ("CRD", crd_is_served),
        ("a valid evolution", lambda: valid_is_admitted(evolution)),
        ("an invalid evolution", lambda: invalid_is_rejected(evolution)),
    ]
    if os.environ["TEST_RUN"] == "yes":
        checks.append(("a tiny evolution", lambda: evolution_runs(evolution)))
    for name, check in checks:
        print(f"{name}: {check()}", flush=True)
    if os.environ["TEST_RUN"] != "yes":
        print("no evolution was run: set test.storage to run one")


if __name__ == "__main__":
    main()
