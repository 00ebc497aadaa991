"""The bridge that connects the node, its pods and the cluster's servers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.cluster import mounts, settings
from tests.support.cluster.commands import find, require, run
from tests.support.cluster.locks import replace_text
from tests.support.cluster.state import State

_RESULTS = Path(
    "/var/lib/cni/results"
)  # the folder of the CNI library, with any root of the runtime


def owner() -> Path | None:
    """Return the state folder of the bridge's cluster, or None without a bridge."""
    if not Path("/sys/class/net", settings.BRIDGE).exists():
        return None
    return Path(Path("/sys/class/net", settings.BRIDGE, "ifalias").read_text().strip() or "/")


def make(state: State) -> None:
    """Create the bridge, unless it exists."""
    ip = require("ip")
    if owner() != state.folder:
        _delete_bridge()  # another cluster may have left it behind
        run(ip, "link", "add", settings.BRIDGE, "type", "bridge")
        run(ip, "link", "set", settings.BRIDGE, "alias", str(state.folder))
    prefix = settings.PODS.rpartition("/")[2]
    run(ip, "address", "replace", f"{settings.HOST}/{prefix}", "dev", settings.BRIDGE)
    run(ip, "link", "set", settings.BRIDGE, "up")
    _configure_pods(state)


def remove(state: State) -> None:
    """Remove the bridge, and the remains of kube-proxy and the CNI plugins."""
    if owner() == state.folder:
        _delete_bridge()
        nft = require("nft")
        for family in ("ip", "ip6"):
            run(nft, "delete", "table", family, "kube-proxy", check=False)
        for result in _RESULTS.glob(f"{settings.BRIDGE}-*-eth0"):
            pod = result.name.removeprefix(f"{settings.BRIDGE}-").removesuffix("-eth0")
            (_RESULTS / f"cni-loopback-{pod}-lo").unlink(missing_ok=True)
            result.unlink(missing_ok=True)
        mounts.remove_empty(_RESULTS, _RESULTS.parent)


def plugins() -> Path:
    """Return the folder of the CNI plugins."""
    return Path(require("bridge")).parent


def configuration(state: State) -> Path:
    """Return the folder with the configuration of the pods' network."""
    return state.data / "cni"


def _configure_pods(state: State) -> None:
    ranges = [[{"subnet": settings.PODS, "rangeStart": settings.POD_FIRST}]]
    addresses = {
        "type": "host-local",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(state.data / "addresses"),
    }
    bridge = {
        "type": "bridge",
        "bridge": settings.BRIDGE,
        "isGateway": True,
        "hairpinMode": True,  # a pod may reach itself through its Service
        "ipam": addresses,
    }
    plan = {"cniVersion": "0.4.0", "name": settings.BRIDGE, "plugins": [bridge]}
    replace_text(configuration(state) / "10-selfemo.conflist", json.dumps(plan))


def _delete_bridge() -> None:
    if find("ip") and Path("/sys/class/net", settings.BRIDGE).exists():
        run(require("ip"), "link", "delete", settings.BRIDGE)
