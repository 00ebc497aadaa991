"""kind: a cluster in one command, where Docker is; without S3, audit log, faults or fake nodes."""

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
    """Whether kind is there and Docker answers."""
    docker = shutil.which("docker")
    if docker is None or shutil.which("kind") is None:
        return False
    done = subprocess.run([docker, "info"], capture_output=True, check=False, timeout=30)
    return done.returncode == 0


def exists() -> bool:
    """Whether the cluster is there."""
    return NAME in run(_program(), "get", "clusters").split()


def up(folder: Path, report: Callable[[str], None]) -> bool:
    """Create the cluster, unless it is there; return whether it was created."""
    kubeconfig = folder / "kubeconfig"
    with locked(folder / ".lock"):
        if there := exists():
            run(_program(), "export", "kubeconfig", *_options(kubeconfig))
        else:
            report("creating a cluster with kind")
            run(_program(), "create", "cluster", *_options(kubeconfig), "--wait=180s")
    return not there


def down(folder: Path) -> bool:
    """Delete the cluster; return whether there was one."""
    with locked(folder / ".lock"):
        if not exists():
            return False
        run(_program(), "delete", "cluster", *_options(folder / "kubeconfig"))
    (folder / "kubeconfig").unlink(missing_ok=True)
    return True


def import_image(archive: Path) -> None:
    """Put the images of an archive on the node."""
    run(_program(), "load", "image-archive", str(archive), f"--name={NAME}")


def _options(kubeconfig: Path) -> list[str]:
    return [f"--name={NAME}", f"--kubeconfig={kubeconfig}"]


def _program() -> str:
    program = shutil.which("kind")
    if program is None:
        raise Unavailable("kind is not there: https://kind.sigs.k8s.io")
    return program
