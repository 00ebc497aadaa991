"""``python -m selfemo_jobs.stages.check --config FILE``.

It is the first program of a run, so it reports where the libraries of the stages are missing.
"""

from __future__ import annotations

import sys

from selfemo_api.contract import ExitCode
from selfemo_api.results import FailureMessage
from selfemo_api.text.control_characters import printable
from selfemo_api.text.extras import add_extra, extra_of
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.termination import write_termination_message


def main() -> int:
    """Run the stage and return its exit code."""
    try:
        from selfemo_jobs.stages.check.stage import PROGRAM
    except ModuleNotFoundError as error:
        hint = add_extra(extra_of(error.name or "") or "jobs")
        text = f"the stages need {error.name}, which is not installed: {hint}"
        sys.stderr.write(f"{printable(text)}\n")
        write_termination_message(FailureMessage(error=text, kind=BadInput.kind))
        return ExitCode.BAD_INPUT
    return PROGRAM.main()


if __name__ == "__main__":
    sys.exit(main())
