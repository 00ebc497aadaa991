"""Why the next Job of an evolution cannot be created, for its status."""

from __future__ import annotations

from dataclasses import dataclass

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.reconcile.purge import OTHER_OWNER

#: Statuses with which the API server rejects an object as invalid. Only an edit helps.
_INVALID = (400, 413, 422)
#: Errors in a row from which one that may pass is reported: a few of a busy server are not worth a
#: write.
_REPORTED = 4
#: The longest texts: with more than the reason, a condition is hard to read.
_MOST_OF_REJECTION, _MOST_OF_TROUBLE = 1500, 500


class RejectedJob(Exception):
    """The API server rejects a Job as invalid. The next reconcile writes it to the status."""


@dataclass
class _Errors:
    """The errors of one evolution since the last Job that was created."""

    count: int = 0
    status: int = 0
    trouble: str = ""
    generation: int = 0
    rejection: str = ""


class CreationErrors:
    """The errors of creations of Jobs, by the uid of the evolution.

    The API server may reject a Job as invalid: the evolution ends until its spec is edited. All
    other errors may pass, also those of an admission policy, which an administrator can correct.
    They are the reason why the evolution waits.
    """

    def __init__(self) -> None:
        self._errors: dict[str, _Errors] = {}

    def record(self, uid: str, generation: int, name: str, error: ApiError) -> None:
        """Record the error of a creation.

        Parameters
        ----------
        uid
            The uid of the evolution.
        generation
            The generation of its spec.
        name
            The name of the Job.
        error
            The error.

        Raises
        ------
        RejectedJob
            If the API server rejects the Job as invalid.
        """
        errors = self._errors.setdefault(uid, _Errors())
        errors.count += 1
        if error.status in _INVALID and not error.is_policy:
            text = f"the API server rejects {name}: {error.message}"
            errors.generation, errors.rejection = generation, text[:_MOST_OF_REJECTION]
            raise RejectedJob(text) from error
        is_told = error.status == 403 or error.is_policy or error.reason == OTHER_OWNER
        if not is_told and errors.count < _REPORTED:
            return
        # the text of one that may pass often has a time or a number, and each text is a write
        if is_told or not errors.trouble or error.status != errors.status:
            text = f"{name} cannot be created: {error.message}"
            errors.status, errors.trouble = error.status, text[:_MOST_OF_TROUBLE]

    def trouble(self, uid: str) -> str:
        """Return why an evolution waits, or an empty text."""
        errors = self._errors.get(uid)
        return errors.trouble if errors else ""

    def rejection(self, uid: str, generation: int) -> str:
        """Return why a Job of an evolution's current spec was rejected, or an empty text."""
        errors = self._errors.get(uid)
        return errors.rejection if errors and errors.generation == generation else ""

    def clear(self, uid: str) -> None:
        """Forget the errors of an evolution: a Job was created, or the evolution was deleted."""
        self._errors.pop(uid, None)
