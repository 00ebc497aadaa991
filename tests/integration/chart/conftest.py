"""Fixtures for the tests of the chart."""

from __future__ import annotations

import pytest

from tests.integration.chart.helm import Helm, find_helm3, find_helm4
from tests.support.cluster.fixtures import control_plane, make_namespace

__all__ = ["control_plane", "make_namespace"]


@pytest.fixture(scope="session")
def helm4() -> Helm:
    """Helm 4."""
    return Helm(find_helm4())


@pytest.fixture(scope="session", params=[find_helm4, find_helm3], ids=["helm4", "helm3"])
def helm(request: pytest.FixtureRequest) -> Helm:
    """Helm 4, and Helm 3: it gets no more fixes, but is still in use."""
    return Helm(request.param())
