"""Fixtures for tests that need a cluster. The last test run that uses a cluster takes it down."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import (
    Cluster,
    ClusterError,
    Unavailable,
    binaries,
    borrowed,
    state_folders,
)


def program_or_skip(name: str, variable: str) -> Path:
    """Return the path of a program, which is built once; skip the test if it cannot be built.

    Parameters
    ----------
    name
        The name of the program.
    variable
        The environment variable that names an installed program.
    """
    if given := os.environ.get(variable):
        return Path(given)
    try:
        return binaries.program(name)
    except ClusterError as error:
        pytest.skip(f"no {name} ({variable} names a program): {error}")


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """An API server with controllers and a scheduler, without nodes."""
    yield from _cluster(control_plane_only=True)


@pytest.fixture(scope="session")
def fragile_control_plane() -> Iterator[Cluster]:
    """A control plane whose API server a test may stop. Only one test uses it at a time."""
    yield from _cluster(control_plane_only=True, folder=state_folders()[2])


@pytest.fixture(scope="session")
def node_cluster() -> Iterator[Cluster]:
    """A cluster that runs pods."""
    yield from _cluster(control_plane_only=False)


@pytest.fixture
def make_namespace() -> Iterator[Callable[..., str]]:
    """A function that creates a namespace, by default with the restricted Pod Security standard.

    The namespace is deleted after the test.
    """
    from kubernetes.client import CoreV1Api

    with contextlib.ExitStack() as made:

        def make(cluster: Cluster, standard: str = "restricted") -> str:
            name = f"selfemo-{secrets.token_hex(4)}"
            labels = {"pod-security.kubernetes.io/enforce": standard}
            client = made.enter_context(cluster.client())
            core: Any = CoreV1Api(client)
            core.create_namespace({"metadata": {"name": name, "labels": labels}})
            made.callback(core.delete_namespace, name)
            return name

        yield make


def _cluster(*, control_plane_only: bool, folder: Path | None = None) -> Iterator[Cluster]:
    with contextlib.ExitStack() as until_the_end:
        try:
            cluster = until_the_end.enter_context(borrowed(control_plane_only, folder))
        except Unavailable as error:
            pytest.skip(str(error))
        yield cluster
