"""``selfemo validate``: checks files with the same rules as the API server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from selfemo_api.command_errors import error_object, report_error
from selfemo_api.contract import ExitCode
from selfemo_api.schema.validation import InvalidEvolution
from selfemo_api.text.control_characters import escaped_json, json_text
from selfemo_operator.cli.entry_point import problems_of
from selfemo_operator.cli.output_format import print_line
from selfemo_operator.cli.resolved import print_resolved
from selfemo_operator.cli.run_options import RunRequest, read_documents
from selfemo_operator.cli.session import SESSION


def validate(files: Sequence[str], changes: Sequence[str], *, as_json: bool, resolve: bool) -> int:
    """Check each document of some files, print what is found, and return the exit code.

    Parameters
    ----------
    files
        The YAML files. ``-``: standard input.
    changes
        The values of ``--set``.
    as_json
        Print one JSON object for each document, in a line.
    resolve
        Print the resolved spec of each valid document.

    Raises
    ------
    RunnerError
        If the value of an option is malformed.
    """
    valid, number = True, 0
    for content in read_documents(files, changes, [], Path(".selfemo")):
        number += 1
        if isinstance(content, InvalidEvolution):
            valid = False
            _report(content, as_json=as_json)
            continue
        if resolve and number > 1 and not as_json:
            print_line("---")
        _print_valid(content, as_json=as_json, resolve=resolve)
    return ExitCode.OK if valid else ExitCode.BAD_INPUT


def _report(error: InvalidEvolution, *, as_json: bool) -> None:
    """Report a document that is not valid, and continue with the others."""
    if as_json:
        content = error_object(str(error), ExitCode.BAD_INPUT, problems=problems_of(error))
        sys.stdout.write(json_text(content) + "\n")
    else:
        report_error(SESSION.command, str(error), ExitCode.BAD_INPUT)


def _print_valid(request: RunRequest, *, as_json: bool, resolve: bool) -> None:
    """Print a valid document as JSON or YAML, or that it is valid."""
    if resolve:
        print_resolved(request.evolution.spec, as_json=as_json)
    elif as_json:
        content = request.evolution.model_dump_json(by_alias=True, exclude_none=True)
        sys.stdout.write(escaped_json(content) + "\n")
    else:
        print_line(f"{request.source} is valid")
