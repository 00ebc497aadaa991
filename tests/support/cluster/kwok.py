"""Fake nodes with kwok, which simulates thousands of pods on one machine."""

from __future__ import annotations

from pathlib import Path

from tests.support.cluster import binaries, settings
from tests.support.cluster.probes import Api, answers
from tests.support.cluster.processes import Component
from tests.support.cluster.state import State

_STAGES = Path(__file__).with_name("kwok-stages.yaml")
_MARK = "kwok.x-k8s.io/node"
_ROOM = {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8", "pods": "1000"}


def start(state: State, count: int, stages: Path | None = None) -> None:
    """Create the nodes, and start kwok."""
    api = Api(state.server, state.authority)
    for number in range(count):
        name = f"kwok-{number}"
        api.apply(f"/api/v1/nodes/{name}", _node(name, state.nodes))
    processes = state.processes
    component = _component(state, stages or _STAGES)
    processes.start(component)
    processes.wait(component)


def _component(state: State, stages: Path) -> Component:
    kubeconfig = state.authority.kubeconfig(
        state.data / "kwok.kubeconfig", state.server, "kwok", "system:masters"
    )
    address = f"{settings.LOOPBACK}:{state.ports['kwok']}"
    return Component(
        "kwok",
        (
            str(binaries.program("kwok")),
            f"--kubeconfig={kubeconfig}",
            f"--server-address={address}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={_MARK}=fake",
            "--node-lease-duration-seconds=40",
            f"--config={stages}",
        ),
        ready=lambda: answers(f"http://{address}/healthz"),
        files=(kubeconfig, stages),
    )


def _node(name: str, tainted: bool) -> dict[str, object]:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok"}
    taint = {"key": _MARK, "value": "fake", "effect": "NoSchedule"}
    metadata = {"name": name, "annotations": {_MARK: "fake"}, "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        # if there is a real node, pods without the toleration stay on it
        "spec": {"taints": [taint] if tainted else []},
        "status": {"allocatable": _ROOM, "capacity": _ROOM},
    }
