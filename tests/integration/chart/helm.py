"""Runs Helm, which is built once with Go if it is not installed."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster.fixtures import program_or_skip

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "selfemo"
VALUES = Path(__file__).parent / "values"
#: The version of Kubernetes to render for: a Helm that was built with Go has no default version.
KUBERNETES = "1.34.0"


def find_helm4() -> Path:
    """Return the path of Helm 4; `SELFEMO_HELM` names an installed one."""
    return program_or_skip("helm", "SELFEMO_HELM")


def find_helm3() -> Path:
    """Return the path of Helm 3; `SELFEMO_HELM3` names an installed one."""
    return program_or_skip("helm3", "SELFEMO_HELM3")


class HelmError(Exception):
    """Helm ended with an error. The message is its output."""


@dataclass(frozen=True)
class Helm:
    """A Helm program, isolated from the settings and clusters of this machine."""

    program: Path

    def run(
        self, *arguments: str, kubeconfig: Path = Path(os.devnull), timeout: float = 120
    ) -> str:
        """Return the standard output. Raises HelmError."""
        with tempfile.TemporaryDirectory() as home:
            own = {f"HELM_{kind}_HOME": home for kind in ("CACHE", "CONFIG", "DATA")}
            result = subprocess.run(
                [str(self.program), *arguments],
                env={
                    "PATH": os.environ["PATH"],
                    "KUBECONFIG": str(kubeconfig),
                    "KUBECACHEDIR": f"{home}/kube",  # otherwise below the current folder
                    **own,
                },
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
            )
        if result.returncode:
            raise HelmError(result.stderr + result.stdout)
        return result.stdout

    def template(
        self,
        values: Path | dict[str, Any] | None = None,
        chart: Path = CHART,
        apis: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """Return all objects of the release `selfemo` in the namespace `selfemo-system`.

        `apis` are the API versions that the cluster serves beside those of Kubernetes. Many tests
        look at the same objects, so the checkout's chart is rendered once for the same values.
        """
        if isinstance(values, Path):
            values = yaml.safe_load(values.read_text())
        text = yaml.safe_dump(values or {})
        render = _rendered if chart == CHART else _rendered.__wrapped__
        objects: list[dict[str, Any]] = json.loads(render(self, text, chart, tuple(apis)))
        return objects


@functools.cache
def _rendered(helm: Helm, values: str, chart: Path, apis: tuple[str, ...]) -> str:
    """Return the rendered objects as JSON, of which each caller gets a copy."""
    arguments = ["--namespace", "selfemo-system", "--kube-version", KUBERNETES]
    arguments += [f"--api-versions={api}" for api in apis]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(values)
        file.flush()
        text = helm.run("template", "selfemo", str(chart), *arguments, "--values", file.name)
    return json.dumps([document for document in yaml.load_all(text, yaml.CSafeLoader) if document])


def find(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the object of a kind and name."""
    (match,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return match
