"""System programs: run with a message that says what failed, and installed where absent."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.cluster.errors import ClusterError, Unavailable

#: A program that is needed, and Debian's package of it.
PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "busybox": "busybox-static",
    "bridge": "containernetworking-plugins",
}
_CNI = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(
    *command: str,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run a program and return what it prints.

    Raises
    ------
    ClusterError
        If it fails and `check` is set; with the last of what it said.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=None if environment is None else {**os.environ, **environment},
    )
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip()[-1000:]
        raise ClusterError(f"{' '.join(command)}: exit {done.returncode}: {words}")
    return done.stdout


def find(name: str) -> str | None:
    """Return a system program's path; a CNI plugin's name works too."""
    if name == "bridge":
        return next((str(at / name) for at in _CNI if (at / name).is_file()), None)
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")


def require(name: str) -> str:
    """Return a system program's path, or say which package has it."""
    path = find(name)
    if path is None:
        raise ClusterError(f"{name} is not there: apt-get install {PACKAGES.get(name, name)}")
    return path


def install(report: Callable[[str], None]) -> None:
    """Install Debian's packages of what a node and its images need and this machine lacks."""
    missing = sorted({package for name, package in PACKAGES.items() if find(name) is None})
    if missing:
        install_packages(missing, report)


def install_packages(packages: Sequence[str], report: Callable[[str], None]) -> None:
    """Install Debian packages.

    Raises
    ------
    Unavailable
        If this is no Debian.
    ClusterError
        If apt-get fails.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise Unavailable(f"{', '.join(packages)}: needed, and there is no apt-get")
    report(f"installing {', '.join(packages)}")
    # another worker may be installing something
    wait = ("-o", "DPkg::Lock::Timeout=300")
    command = (apt, "install", "-y", "-q", *wait, "--no-install-recommends", *packages)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(*command, environment=quiet)
    except ClusterError:  # its lists may be old or never fetched
        run(apt, "update", "-q")
        run(*command, environment=quiet)
