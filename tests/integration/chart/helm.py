"""Helm itself, built once by Go where it is not at hand, and what the tests ask of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster import binaries
from tests.support.cluster.fixtures import program_or_skip

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "selfemo"
VALUES = Path(__file__).parent / "values"
#: Built by hand where it is wanted: `GOBIN=… go install helm.sh/helm/v3/cmd/helm@v3.22.0`.
HELM3 = "v3.22.0"
#: Rendered for this Kubernetes: a Helm that Go builds does not know which it was made for.
KUBERNETES = "1.34.0"


def find_helm4() -> Path:
    """Return Helm 4; `SELFEMO_HELM` names one that is already there."""
    return program_or_skip("helm", "SELFEMO_HELM")


def find_helm3() -> Path:
    """Return Helm 3 from `SELFEMO_HELM3` or the cache; the test is skipped where neither has it."""
    cached = binaries.cache_folder() / "helm" / HELM3 / "bin" / "helm"
    program = Path(os.environ.get("SELFEMO_HELM3") or cached)
    if not program.is_file():
        pytest.skip(f"no Helm 3 at {program}: set SELFEMO_HELM3 to a helm program")
    return program


class Refused(Exception):
    """Helm ended with an error; the message is what it said."""


@dataclass(frozen=True)
class Helm:
    """One Helm program, away from this machine's own settings and clusters."""

    program: Path

    def run(
        self, *arguments: str, kubeconfig: Path = Path(os.devnull), timeout: float = 120
    ) -> str:
        """Return standard output, or raise Refused."""
        with tempfile.TemporaryDirectory() as home:
            own = {f"HELM_{kind}_HOME": home for kind in ("CACHE", "CONFIG", "DATA")}
            done = subprocess.run(
                [str(self.program), *arguments],
                env={
                    "PATH": os.environ["PATH"],
                    "KUBECONFIG": str(kubeconfig),
                    "KUBECACHEDIR": f"{home}/kube",  # else below the folder where it runs
                    **own,
                },
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
            )
        if done.returncode:
            raise Refused(done.stderr + done.stdout)
        return done.stdout

    def template(
        self, values: Path | dict[str, Any] | None = None, chart: Path = CHART
    ) -> list[dict[str, Any]]:
        """Return all objects of a release `selfemo` in the namespace `selfemo-system`."""
        arguments = ["--namespace", "selfemo-system", "--kube-version", KUBERNETES]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as given:
            if isinstance(values, dict):
                yaml.safe_dump(values, given)
                given.flush()
                values = Path(given.name)
            if values is not None:
                arguments += ["--values", str(values)]
            text = self.run("template", "selfemo", str(chart), *arguments)
        return [document for document in yaml.safe_load_all(text) if document]


def find(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one object of a kind and name."""
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found
