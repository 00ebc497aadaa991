"""Runs system programs, with clear error messages, and installs missing ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.cluster.errors import ClusterError, Unavailable

#: The required programs, and the Debian package of each.
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
    """Run a program and return its output.

    Raises
    ------
    ClusterError
        If the program fails and `check` is set. The message has the end of its output.
    """
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=None if environment is None else {**os.environ, **environment},
    )
    if check and result.returncode:
        output = (result.stderr or result.stdout).strip()[-1000:]
        raise ClusterError(f"{' '.join(command)}: exit code {result.returncode}: {output}")
    return result.stdout


def find(name: str) -> str | None:
    """Return the path of a system program or of a CNI plugin, or None."""
    if name == "bridge":
        return next((str(at / name) for at in _CNI if (at / name).is_file()), None)
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")


def require(name: str) -> str:
    """Return the path of a system program. Raises ClusterError with its package."""
    path = find(name)
    if path is None:
        raise ClusterError(f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}")
    return path


def install(report: Callable[[str], None]) -> None:
    """Install the missing Debian packages that a node and its images require."""
    missing = sorted({package for name, package in PACKAGES.items() if find(name) is None})
    if missing:
        install_packages(missing, report)


def install_packages(packages: Sequence[str], report: Callable[[str], None]) -> None:
    """Install Debian packages.

    Raises
    ------
    Unavailable
        If this machine does not run Debian.
    ClusterError
        If apt-get fails.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise Unavailable(f"{', '.join(packages)}: required, and apt-get is not available")
    report(f"installing {', '.join(packages)}")
    # another worker may be installing packages
    wait = ("-o", "DPkg::Lock::Timeout=300")
    command = (apt, "install", "-y", "-q", *wait, "--no-install-recommends", *packages)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(*command, environment=quiet)
    except ClusterError:  # the package lists may be old or missing
        run(apt, "update", "-q")
        run(*command, environment=quiet)
