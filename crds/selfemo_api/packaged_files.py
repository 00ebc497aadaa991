"""Files of the repository that the wheel includes: the CRD and the examples.

The wheel contains them in the ``files`` folder of this package (``wheel.force-include`` in
pyproject.toml). In a checkout there is no such folder, and they are read from their own location.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

#: The file of the CRD, in ``crds`` of the checkout.
CRD_FILE = "selfemo.dev_emotionevolutions.yaml"
#: The folder in the wheel, below this package.
_FOLDER = "files"
#: The repository, if this is a checkout.
_CHECKOUT = Path(__file__).resolve().parents[2]


def crd_file() -> Traversable:
    """Return the file of the CustomResourceDefinition."""
    return _packaged(CRD_FILE, _CHECKOUT / "crds" / CRD_FILE)


def examples_folder() -> Traversable:
    """Return the folder of the examples: YAML files, and folders with the data of some."""
    return _packaged("examples", _CHECKOUT / "examples")


def example_names() -> tuple[str, ...]:
    """Return the names of the examples, in alphabetical order.

    Examples
    --------
    >>> "demo" in example_names()
    True
    """
    names = (entry.name for entry in examples_folder().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def _packaged(name: str, in_checkout: Path) -> Traversable:
    packaged = files("selfemo_api") / _FOLDER / name
    return packaged if packaged.is_file() or packaged.is_dir() else in_checkout
