"""Saves the kernel settings that a node changes, and restores them afterwards."""

from __future__ import annotations

from pathlib import Path

from tests.support.cluster.state import State

_FORWARD = "net/ipv4/ip_forward"
#: The settings that the kubelet changes when it starts.
_KUBELET = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


def prepare(state: State) -> None:
    """Save the settings, unless they are saved already, and enable the forwarding of packets."""
    if not state.undo:
        names = [name for name in (_FORWARD, *_KUBELET) if _file(name).exists()]
        state.undo = {name: _file(name).read_text().strip() for name in names}
        state.save()
    if _file(_FORWARD).read_text().strip() != "1":
        # packets to a Service return to the bridge that they came from
        _file(_FORWARD).write_text("1")


def restore(state: State) -> None:
    """Restore the settings that have changed."""
    for name, value in state.undo.items():
        if _file(name).read_text().strip() != value:
            _file(name).write_text(value)


def _file(name: str) -> Path:
    return Path("/proc/sys") / name
