"""A cluster by kind, which requires Docker. It has no S3, audit log, faults or fake nodes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.cluster.commands import run
from tests.support.cluster.errors import Unavailable
from tests.support.cluster.locks import locked

NAME = "selfemo-test"


def works() -> bool:
    """Return whether kind is installed and Docker works."""
    docker = shutil.which("docker")
    if docker is None or shutil.which("kind") is None:
        return False
    result = subprocess.run([docker, "info"], capture_output=True, check=False, timeout=30)
    return result.returncode == 0


def exists() -> bool:
    """Return whether the cluster exists."""
    return NAME in run(_program(), "get", "clusters").split()


def up(folder: Path, report: Callable[[str], None]) -> bool:
    """Create the cluster unless it exists; return whether it was created."""
    kubeconfig = folder / "kubeconfig"
    with locked(folder / ".lock"):
        if existed := exists():
            run(_program(), "export", "kubeconfig", *_options(kubeconfig))
        else:
            report("creating a cluster with kind")
            run(_program(), "create", "cluster", *_options(kubeconfig), "--wait=180s")
    return not existed


def down(folder: Path) -> bool:
    """Delete the cluster; return whether there was one."""
    with locked(folder / ".lock"):
        if not exists():
            return False
        run(_program(), "delete", "cluster", *_options(folder / "kubeconfig"))
    (folder / "kubeconfig").unlink(missing_ok=True)
    return True


def import_image(archive: Path) -> None:
    """Import the images of an archive into the node."""
    run(_program(), "load", "image-archive", str(archive), f"--name={NAME}")


def _options(kubeconfig: Path) -> list[str]:
    return [f"--name={NAME}", f"--kubeconfig={kubeconfig}"]


def _program() -> str:
    program = shutil.which("kind")
    if program is None:
        raise Unavailable("kind is not installed: https://kind.sigs.k8s.io")
    return program
