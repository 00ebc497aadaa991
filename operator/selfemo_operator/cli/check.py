"""``selfemo check``: finds the problems of a run's input without starting a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfemo_api.command_errors import MISSING_EXTRA
from selfemo_api.contract import DRY_RUN_MODULE, ENV_DATA, ENV_PARENT, ENV_WORK, ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.metrics import CheckMetric
from selfemo_api.stages import Stage
from selfemo_api.text.control_characters import json_text, printable
from selfemo_api.text.extras import extra_of, missing_extra_message
from selfemo_operator.cli.job_program import require_extras
from selfemo_operator.cli.output_format import print_line
from selfemo_operator.cli.run_estimate import estimate_lines
from selfemo_operator.cli.run_options import RunRequest
from selfemo_operator.local.state import RunnerError
from selfemo_operator.planner.lifecycle import begin
from selfemo_operator.planner.stage_config import stage_config

_MISSING_MODULE = re.compile(r"ModuleNotFoundError: .*'([\w.]+)'")


@dataclass(frozen=True)
class CheckReport:
    """What the check of an input found."""

    content: Mapping[str, Any]
    """The JSON object that the program printed."""

    def lines(self, kind: str) -> list[str]:
        """Return the findings of a kind, each as one line that begins with its field.

        Parameters
        ----------
        kind
            ``problems``, ``unavailable`` or ``warnings``.
        """
        return [f"{finding['field']}: {finding['message']}" for finding in self.content[kind]]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        if self.content["problems"]:
            return ExitCode.BAD_INPUT
        return ExitCode.UNAVAILABLE if self.content["unavailable"] else ExitCode.OK

    @property
    def summary(self) -> str:
        """What is in an input without a problem, in one line."""
        metrics = self.content["metrics"]
        numbers = {metric: int(metrics.get(metric, 0)) for metric in CheckMetric}
        text = (
            f"no problems found: {numbers[CheckMetric.DIALOGUES]:,} dialogues with "
            f"{numbers[CheckMetric.UTTERANCES]:,} utterances"
        )
        if numbers[CheckMetric.LABELED_UTTERANCES]:
            text += f", {numbers[CheckMetric.LABELED_UTTERANCES]:,} of them labeled for training"
        if numbers[CheckMetric.PARAMETERS]:
            text += f"; a model of {numbers[CheckMetric.PARAMETERS] / 1e6:,.1f} million parameters"
        return text

    @property
    def estimate(self) -> list[str]:
        """What the run takes at most, in lines; none if it could not be estimated."""
        estimate = self.content.get("estimate")
        return estimate_lines(estimate) if estimate else []


def check(request: RunRequest, *, as_json: bool) -> int:
    """Check the input of a run, print what is found, and return the exit code.

    Parameters
    ----------
    request
        The evolution to check.
    as_json
        Print the result as one JSON object. Otherwise problems are lines on standard error.

    Raises
    ------
    RunnerError
        If the check cannot run.
    """
    report = check_input(request)
    if as_json:
        sys.stdout.write(json_text(report.content) + "\n")
        return report.exit_code
    print_findings(report)
    if report.exit_code is ExitCode.OK:
        print_line(report.summary)
        for line in report.estimate:
            print_line(line)
    return report.exit_code


def check_all(requests: Sequence[RunRequest], *, as_json: bool) -> int:
    """Check the input of runs one after another; return the exit code of the first with a problem.

    Parameters
    ----------
    requests
        The evolutions to check.
    as_json
        Print the result of each as one JSON object in a line.

    Raises
    ------
    RunnerError
        If a check cannot run.
    """
    failed: int = ExitCode.OK
    for request in requests:
        if len(requests) > 1 and not as_json:
            print_line(f"{request.source}:")
        code = check(request, as_json=as_json)
        failed = failed or code
    return failed


def print_findings(report: CheckReport) -> None:
    """Print the problems, what could not be checked, and the warnings, a line for each.

    Parameters
    ----------
    report
        What was found.
    """
    texts = report.lines("problems")
    texts += [f"not checked: {line}" for line in report.lines("unavailable")]
    texts += [f"warning: {line}" for line in report.lines("warnings")]
    for text in texts:
        sys.stderr.write(f"{printable(text)}\n")


def check_input(request: RunRequest) -> CheckReport:
    """Return what is wrong with the input of a run. No run is started.

    Parameters
    ----------
    request
        The evolution to check.

    Raises
    ------
    RunnerError
        If the check ends without a result.
    """
    require_extras("jobs")
    metadata = request.evolution.metadata.model_copy(update={"uid": request.uid})
    evolution = EmotionEvolution(metadata=metadata, spec=request.evolution.spec)
    status = begin(evolution, datetime.now(UTC))
    config = stage_config(evolution, status, evolution.spec, Stage.CHECK)
    environment = {
        **os.environ,
        ENV_PARENT: str(os.getpid()),
        ENV_DATA: ":".join(f"{name}={folder}" for name, folder in sorted(request.data.items())),
        # a model of a Python package is made once, where the run will look for it
        ENV_WORK: str(request.state / "work"),
        "TQDM_DISABLE": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(config.model_dump_json(by_alias=True))
        done = subprocess.run(
            [sys.executable, "-m", DRY_RUN_MODULE, "--config", str(file)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        return CheckReport(json.loads(done.stdout.strip().splitlines()[-1]))
    except (ValueError, IndexError):
        raise _no_result(done) from None


def _no_result(done: subprocess.CompletedProcess[str]) -> RunnerError:
    """Return the error of a check that ended without a result."""
    last = (done.stderr.strip().splitlines() or [f"it exited with code {done.returncode}"])[-1]
    missing = _MISSING_MODULE.match(last)
    if missing is not None:
        extra = extra_of(missing[1]) or "jobs"
        return RunnerError(missing_extra_message(extra), kind=MISSING_EXTRA)
    return RunnerError(f"the check ended without a result: {last}", ExitCode.INTERNAL)
