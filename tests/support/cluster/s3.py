"""The S3 servers of the cluster: versitygw on the bridge, for pods and for this machine."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.support.cluster import binaries, settings
from tests.support.cluster.probes import answers
from tests.support.cluster.processes import Component
from tests.support.cluster.state import S3, State

MAIN = "s3"
OTHER = "s3-other"
"""The second server, which tests start and may stop."""


def describe(state: State) -> S3:
    """Return the address and the keys of the server."""
    if state.s3 is not None:
        return state.s3
    return S3(endpoint(state), settings.BUCKET, "selfemo-test", secrets.token_hex(16))


def endpoint(state: State, name: str = MAIN) -> str:
    """Return the URL of one of the servers."""
    return f"http://{settings.HOST}:{state.ports[name]}"


def arguments(folder: Path, address: str) -> list[str]:
    """Return the arguments of versitygw for a bucket in a folder, which is created."""
    (folder / "root" / settings.BUCKET).mkdir(parents=True, exist_ok=True)
    (folder / "meta").mkdir(exist_ok=True)
    options = ["--port", address, "--quiet", "--health", "/healthz"]
    # the metadata is in a separate folder: a temporary folder may not support extended attributes
    return [*options, "posix", "--sidecar", str(folder / "meta"), str(folder / "root")]


def environment(access_key: str, secret_key: str) -> dict[str, str]:
    """Return the environment with the keys of versitygw's administrator."""
    return {"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}


def component(state: State, name: str = MAIN) -> Component:
    """Return one of the servers."""
    assert state.s3 is not None
    address = f"{settings.HOST}:{state.ports[name]}"
    return Component(
        name,
        (str(binaries.program("versitygw")), *arguments(state.data / name, address)),
        ready=lambda: answers(f"http://{address}/healthz"),
        environment=environment(state.s3.access_key, state.s3.secret_key),
    )
