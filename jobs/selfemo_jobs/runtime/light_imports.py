"""What a stage's process does not import, because it never uses it."""

from __future__ import annotations


def skip_unused_imports() -> None:
    """Make Transformers believe that scikit-learn and SciPy are not installed.

    It imports them for a kind of assisted generation, and for losses of models that look at images.
    No stage uses either. Call it in a process of a stage, before a model's class is imported. A
    process that belongs to somebody else, as with `import selfemo`, is left as it is.
    """
    from transformers import utils

    utils.is_sklearn_available = lambda: False
    utils.is_scipy_available = lambda: False
