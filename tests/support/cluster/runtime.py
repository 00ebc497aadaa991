"""containerd with separate folders: root, state, socket, image store and network namespaces."""

from __future__ import annotations

from pathlib import Path

from tests.support.cluster import cgroups, mounts, network, settings
from tests.support.cluster.commands import require, run
from tests.support.cluster.errors import Unavailable
from tests.support.cluster.locks import replace_text
from tests.support.cluster.probes import listens
from tests.support.cluster.processes import Component
from tests.support.cluster.state import State

# fixed paths of the kubelet and the shims
_LOG_LINKS = Path("/var/log/containers")
_SHIMS = Path("/run/containerd/s")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins/kubelet.sock")


def socket(state: State) -> Path:
    """Return the runtime's socket."""
    return state.data / "containerd.sock"


def check_free(state: State) -> None:
    """Check that no other kubelet runs on the machine: two would use the same sockets.

    Raises
    ------
    Unavailable
        If this machine is a node of another cluster.
    """
    if state.processes.pid("kubelet") is None and listens(_DEVICE_PLUGINS):
        raise Unavailable(
            "this machine is a node of a cluster already: use the kubeconfig of that cluster"
            " (--kubeconfig, SELFEMO_TEST_KUBECONFIG)"
        )


def component(state: State) -> Component:
    """Return containerd."""
    folder = state.data / "containerd"
    config = folder / "config.toml"
    replace_text(config, _configuration(state, folder))
    return Component(
        "containerd",
        (require("containerd"), f"--config={config}"),
        ready=lambda: listens(socket(state)),
        files=(config,),
        started=cgroups.enter_runtime,
    )


def import_archive(state: State, archive: Path) -> list[str]:
    """Import the images of an archive (Docker or OCI) into the runtime.

    Returns
    -------
    list of str
        The output of `ctr` for each image.
    """
    output = run(
        require("ctr"),
        f"--address={socket(state)}",
        "--namespace=k8s.io",
        "images",
        "import",
        str(archive),
    )
    return output.splitlines()


def remove(state: State) -> None:
    """Unmount the mounts of the runtime and the kubelet, and remove their other remains.

    Their processes must have ended.
    """
    for shim in _SHIMS.glob("*"):
        if not listens(shim):  # of a killed process
            shim.unlink(missing_ok=True)
    mounts.unmount(state.folder)
    logs = state.data / "pod-logs"
    for link in _LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(logs):
            link.unlink()
    if not listens(_DEVICE_PLUGINS):
        _DEVICE_PLUGINS.unlink(missing_ok=True)
    mounts.remove_empty(_LOG_LINKS, *_DEVICE_PLUGINS.parents[:2], _SHIMS, _SHIMS.parent)


def _configuration(state: State, folder: Path) -> str:
    return f"""version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "{socket(state)}"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{settings.PAUSE_IMAGE}"
# without CAP_SYS_RESOURCE a sandbox cannot lower its score, and would not start
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{folder}/runc"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{network.plugins()}"
conf_dir = "{network.configuration(state)}"
"""
