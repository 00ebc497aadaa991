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


@pytest.fixture(scope="session")
def helm3() -> Helm:
    """Helm 3."""
    return Helm(find_helm3())


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(find_helm4, id="helm4"),
        pytest.param(find_helm3, id="helm3", marks=pytest.mark.slow),
    ],
)
def helm(request: pytest.FixtureRequest) -> Helm:
    """Helm 4, and Helm 3: it gets no more fixes, but is still in use.

    The tests with Helm 3 are slow together: `make test` has `helm3` in one test.
    """
    return Helm(request.param())
