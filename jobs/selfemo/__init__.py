"""selfemo in Python: run an evolution on this machine, and use its models.

>>> from selfemo import Turn
>>> Turn("Ann", "We won!").text
'We won!'

Nothing heavy is imported before it is needed: ``import selfemo`` works in an installation without
extras.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfemo.errors import MissingExtra, RunFailed
    from selfemo.evolution import Evolution, Snapshot
    from selfemo.model import Model
    from selfemo.roles import Recognizer, Responder
    from selfemo.turns import Dialogue, Turn, Turns, read_dialogues
    from selfemo_jobs.errors import BadInput, Unavailable
    from selfemo_jobs.inference import Prediction, Reply

try:
    __version__ = version("selfemo")
except PackageNotFoundError:  # the sources, without an installation
    __version__ = "0"

__all__ = [
    "BadInput",
    "Dialogue",
    "Evolution",
    "MissingExtra",
    "Model",
    "Prediction",
    "Recognizer",
    "Reply",
    "Responder",
    "RunFailed",
    "Snapshot",
    "Turn",
    "Turns",
    "Unavailable",
    "__version__",
    "read_dialogues",
]

#: The module of each name.
_MODULES = {
    "BadInput": "selfemo_jobs.errors",
    "Dialogue": "selfemo.turns",
    "Evolution": "selfemo.evolution",
    "MissingExtra": "selfemo.errors",
    "Model": "selfemo.model",
    "Prediction": "selfemo_jobs.inference",
    "Recognizer": "selfemo.roles",
    "Reply": "selfemo_jobs.inference",
    "Responder": "selfemo.roles",
    "RunFailed": "selfemo.errors",
    "Snapshot": "selfemo.evolution",
    "Turn": "selfemo.turns",
    "Turns": "selfemo.turns",
    "Unavailable": "selfemo_jobs.errors",
    "read_dialogues": "selfemo.turns",
}


def __getattr__(name: str) -> Any:
    """Return a public name, whose module is imported on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _MODULES[name] == "selfemo_jobs.inference":
        from selfemo.errors import require

        require(f"selfemo.{name}", "jobs")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
