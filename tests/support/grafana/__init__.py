"""Grafana's own types of dashboards, and a check of a dashboard against them with TypeScript.

The types are in the npm package ``@grafana/schema``, which Grafana generates from its schema.
``python -m tests.support.grafana`` installs them. Grafana's server is not needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.cluster.binaries import cache_folder
from tests.support.cluster.errors import ClusterError, Unavailable
from tests.support.cluster.locks import locked

Json = dict[str, Any]
_FOLDER = Path(__file__).resolve().parent
_LOCK = _FOLDER / "package-lock.json"
_OPTIONS = (
    *("--noEmit", "--strict", "--skipLibCheck", "--pretty", "false"),
    *("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"),
)


def packages() -> Path:
    """Return the folder `node_modules` with TypeScript and Grafana's types; install them once.

    Raises
    ------
    Unavailable
        If Node.js or npm is not installed.
    ClusterError
        If the installation fails.
    """
    version = hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / "grafana-types" / version
    if (folder / "node_modules").is_dir():
        return folder / "node_modules"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Unavailable("Node.js and npm are not installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        locked(folder.parent / f".{version}.lock"),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{version}-") as temporary,
    ):
        if not folder.is_dir():  # otherwise another process has installed them
            new = Path(temporary) / "new"
            new.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(_FOLDER / name, new)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            result = subprocess.run(command, cwd=new, capture_output=True, text=True, check=False)
            if result.returncode:
                raise ClusterError(f"{' '.join(command)}:\n{result.stderr[-2000:]}")
            new.rename(folder)
    return folder / "node_modules"


def type_errors(dashboards: Mapping[str, Json], folder: Path) -> list[str]:
    """Return TypeScript's errors about dashboards, each with the dashboard's name and its line.

    Parameters
    ----------
    dashboards
        The JSON of each dashboard, by name.
    folder
        An empty folder for TypeScript's files. A line of an error is one of a file in it.
    """
    modules = packages()
    (folder / "node_modules").symlink_to(modules)
    shutil.copy(_FOLDER / "dashboard.ts", folder)
    for name, dashboard in dashboards.items():
        literal = json.dumps(dashboard, indent=1)
        head = "import type { DashboardJson } from './dashboard';\n"
        (folder / f"{name}.ts").write_text(
            f"{head}export const board: DashboardJson = {literal};\n"
        )
    compiler = modules / "typescript" / "bin" / "tsc"
    command = ["node", str(compiler), *_OPTIONS, *(f"{name}.ts" for name in dashboards)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    lines = result.stdout.splitlines() + result.stderr.splitlines()
    if result.returncode and not lines:
        raise ClusterError(f"{' '.join(command)}: exit code {result.returncode}")
    return lines
