"""Parts of Grafana that are npm packages: the types of dashboards, and transformations of data.

``@grafana/schema`` has types that Grafana generates from its schema; TypeScript checks a dashboard
against them. ``@grafana/data`` has the code that transforms the results of a panel's queries.
``python -m tests.support.grafana`` installs the types. No server of Grafana is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tests.support.cluster.binaries import cache_folder
from tests.support.cluster.errors import ClusterError, Unavailable
from tests.support.cluster.locks import locked

Json = dict[str, Any]
_FOLDER = Path(__file__).resolve().parent
_OPTIONS = (
    *("--noEmit", "--strict", "--skipLibCheck", "--pretty", "false"),
    *("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"),
)


def packages(part: Literal["types", "data"]) -> Path:
    """Return the folder `node_modules` with the packages of a part; install them once.

    Parameters
    ----------
    part
        The folder beside this file with the names and versions of the packages.

    Raises
    ------
    Unavailable
        If Node.js or npm is not installed.
    ClusterError
        If the installation fails.
    """
    version = hashlib.sha256((_FOLDER / part / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"grafana-{part}" / version
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
                shutil.copy(_FOLDER / part / name, new)
            # Grafana's packages disagree about the version of React, which is not used here
            options = ("--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund")
            command = [npm, "ci", *options]
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
    modules = packages("types")
    (folder / "node_modules").symlink_to(modules)
    shutil.copy(_FOLDER / "types" / "dashboard.ts", folder)
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


def transformed(panel: Json, results: Sequence[Sequence[Json]]) -> list[dict[str, Any]]:
    """Return the rows that a panel shows, by the names of its columns.

    Parameters
    ----------
    panel
        The JSON of the panel.
    results
        The series of each query over a time range, as Prometheus returns them. Those of a query
        have no labels.

    Raises
    ------
    ClusterError
        If Grafana's code fails.
    """
    queries = zip(panel["targets"], results, strict=True)
    request = {
        "transformations": panel["transformations"],
        "results": [{"refId": q["refId"], "series": list(series)} for q, series in queries],
    }
    script = _FOLDER / "data" / "transform.cjs"
    result = subprocess.run(
        ["node", str(script), str(packages("data"))],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ClusterError(f"{script.name}: {result.stderr[-2000:]}")
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows
