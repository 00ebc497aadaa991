"""What goes wrong with a test cluster."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """The cluster cannot be brought up, or has lost something it needs."""


class Unavailable(ClusterError):
    """This machine lacks what such a cluster needs; a test that asks for it is skipped."""
