"""What the check finds: problems, warnings, and what it could not look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from selfemo_api.recipes import written_path
from selfemo_jobs.errors import BadInput, InputProblems, Unavailable
from selfemo_jobs.store.local_files import translate_os_error

#: The largest length of the joined problems. The message of a condition has 2048 characters, and
#: begins with the stage; a termination message has 4096 bytes.
MESSAGE_CHARACTERS = 1900
MESSAGE_BYTES = 3800


@dataclass(frozen=True)
class Finding:
    """A problem or a warning."""

    field: str
    """The field below ``spec`` in which a person fixes it, as a dotted path."""
    message: str
    """What is wrong, where, and what to do, in one line."""

    def __str__(self) -> str:
        """Return the field and the message as one line of text."""
        return f"{self.field}: {self.message}"


@dataclass
class Findings:
    """All that a check finds, in the order in which it was found."""

    problems: list[Finding] = field(default_factory=list)
    """What requires a user fix."""
    warnings: list[Finding] = field(default_factory=list)
    """What may be intended, and is worth a look."""
    unavailable: list[Finding] = field(default_factory=list)
    """What could not be looked at, because a service did not answer."""

    def problem(self, path: str, message: str) -> None:
        """Add a problem, unless it is there.

        Parameters
        ----------
        path
            The dotted path of the field in the resolved spec. The finding has the path at which a
            person writes it.
        message
            What is wrong, where, and what to do.
        """
        _add(self.problems, path, message)

    def warning(self, path: str, message: str) -> None:
        """Add a warning, unless it is there. Parameters are those of :meth:`problem`."""
        _add(self.warnings, path, message)

    def collecting(self, path: str) -> Collecting:
        """Return a context that adds the errors of its block and ends the block.

        BadInput becomes a problem of a field. Unavailable is added to :attr:`unavailable`. The
        operating system's errors become one of these.

        Parameters
        ----------
        path
            The dotted path of the field in the resolved spec.
        """
        return Collecting(self, path)

    def raise_if_any(self) -> None:
        """Raise the error of a check that has found something.

        Raises
        ------
        BadInput
            If there is a problem. The message has all problems, as far as they fit.
        Unavailable
            If there is none, but something could not be looked at.
        """
        if self.problems:
            raise InputProblems(joined(self.problems, self.unavailable))
        if self.unavailable:
            raise Unavailable("; ".join(str(finding) for finding in self.unavailable))


@dataclass(frozen=True)
class Collecting:
    """The context of :meth:`Findings.collecting`."""

    findings: Findings
    path: str

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        """Add the error of the block; return whether there is nothing to raise."""
        if isinstance(error, OSError):  # of a file of the model or of a source
            error = translate_os_error(error.filename or self.path, error)
        if isinstance(error, BadInput):
            self.findings.problem(self.path, str(error))
        elif isinstance(error, Unavailable):
            _add(self.findings.unavailable, self.path, str(error))
        return isinstance(error, BadInput | Unavailable)


def joined(problems: Sequence[Finding], unavailable: Sequence[Finding] = ()) -> str:
    """Return problems as the text of an error, each in a line, as far as they fit.

    Parameters
    ----------
    problems
        The problems, at least one.
    unavailable
        What could not be looked at. It follows the problems.

    Examples
    --------
    >>> print(joined([Finding("model.uri", "does not exist")]))
    model.uri: does not exist
    >>> print(joined([Finding("model.uri", "is missing"), Finding("seed", "is odd")]))
    2 problems
    model.uri: is missing
    seed: is odd
    """
    lines = [str(finding) for finding in problems]
    lines += [f"{finding.field}: not checked: {finding.message}" for finding in unavailable]
    if len(lines) == 1 and _fits(lines[0]):
        return lines[0]
    heading = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    for count in range(len(lines), 0, -1):
        more = [f"and {len(lines) - count} more: see the log"] if count < len(lines) else []
        text = "\n".join([heading, *lines[:count], *more])
        if _fits(text):
            return text
    return f"{lines[0][:600]}…\nand {len(lines) - 1} more: see the log"


def _fits(text: str) -> bool:
    """Return whether a text fits into a condition and into a termination message."""
    in_json = len(json.dumps(text, ensure_ascii=False).encode())
    return len(text) <= MESSAGE_CHARACTERS and in_json <= MESSAGE_BYTES


def _add(findings: list[Finding], path: str, message: str) -> None:
    # messages of stages begin with the field, which the finding has
    text = " ".join(message.split()).removeprefix(f"`{path}`").lstrip(": ")
    finding = Finding(written_path(path), text)
    if finding not in findings:
        findings.append(finding)
