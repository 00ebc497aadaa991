"""Errors of the test cluster."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """The cluster cannot be started, or a part of it has failed."""


class Unavailable(ClusterError):
    """This machine does not meet the requirements. Tests that need the cluster are skipped."""
