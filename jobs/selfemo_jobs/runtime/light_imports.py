"""What a stage's process does not import, because it never uses it."""

from __future__ import annotations


def skip_sklearn_import() -> None:
    """Make Transformers believe that scikit-learn is not installed.

    It imports it, and SciPy with it, for a kind of assisted generation that no stage uses. Call it
    in a process of a stage, before a model's class is imported. A process that belongs to somebody
    else, as with `import selfemo`, is left as it is.
    """
    from transformers import utils

    utils.is_sklearn_available = lambda: False
