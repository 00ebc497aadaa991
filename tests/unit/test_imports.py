"""The operator's image has no torch: what runs there must not ask for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: What only the jobs' image carries.
JOBS_ONLY = (
    "torch",
    "transformers",
    "trl",
    "deepspeed",
    "vllm",
    "daft",
    "ray",
    "pyarrow",
    "numpy",
    "boto3",
    "sklearn",
    "selfemo_jobs",
)

#: Imports every module below a package, with the others refused.
SCRIPT = """
import importlib, pkgutil, sys
package, refused = sys.argv[1], set(sys.argv[2:])
for name in refused:
    sys.modules[name] = None
root = importlib.import_module(package)
for module in pkgutil.walk_packages(root.__path__, package + "."):
    importlib.import_module(module.name)
    print(module.name)
"""


def _import_all(package: str, refused: tuple[str, ...]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, package, *refused],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("package", "module", "refused"),
    [
        ("selfemo_api", "selfemo_api.schema.validation", (*JOBS_ONLY, "selfemo_operator")),
        ("selfemo_operator", "selfemo_operator.planner.plan", JOBS_ONLY),
    ],
)
def test_imports_without_the_jobs(package: str, module: str, refused: tuple[str, ...]) -> None:
    assert module in _import_all(package, refused)


def test_planner_needs_neither_kopf_nor_kubernetes() -> None:
    """One machine runs the same planner without a cluster's libraries."""
    refused = (*JOBS_ONLY, "kopf", "kubernetes", "prometheus_client")
    script = "import sys\nfor n in sys.argv[1:]: sys.modules[n] = None\n"
    for module in ("planner.plan", "local.runner", "cli.main"):
        script += f"import selfemo_operator.{module}\n"
    done = subprocess.run(
        [sys.executable, "-c", script, *refused], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
