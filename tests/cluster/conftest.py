"""The cluster's fixtures."""

from __future__ import annotations

from tests.cluster.fixtures import (
    control_plane,
    fragile_control_plane,
    make_namespace,
    node_cluster,
)

__all__ = ["control_plane", "fragile_control_plane", "make_namespace", "node_cluster"]
