"""``selfemo run``: prints the plan, the live progress and the table of generations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionType
from selfemo_operator.cli import output_format
from selfemo_operator.cli.check import check_input, print_findings
from selfemo_operator.cli.report import write_report
from selfemo_operator.cli.run_options import RunRequest
from selfemo_operator.cli.terminal.progress import Progress
from selfemo_operator.cli.terminal.score_table import generation_table, plan_table, summary
from selfemo_operator.local.runner import ProcessRunner, run_local
from selfemo_operator.local.state import LocalState, RunnerError


def run(request: RunRequest, *, as_json: bool, dry_run: bool) -> int:
    """Run an evolution to its end, print the result, and return the exit code.

    Parameters
    ----------
    request
        The evolution to run.
    as_json
        Print the result as one JSON object. Otherwise it is a table.
    dry_run
        Only check the input and print the plan.

    Raises
    ------
    RunnerError
        If the run cannot start, or if Ctrl-C stopped it.
    """
    console = output_format.console(stderr=True)
    if dry_run:
        report = check_input(request)
        print_findings(report, console)
        if report.exit_code is not ExitCode.OK:
            return report.exit_code
    console.print(plan_table(request.evolution, request.state))
    if dry_run:
        return ExitCode.OK
    state = LocalState(request.state)
    try:
        evolution = _run_to_end(request, state, console)
    finally:
        state.close()
    page = _report_page(request, evolution, console)
    if as_json:
        sys.stdout.write(json.dumps({**summary(evolution), "report": str(page or "")}) + "\n")
    else:
        out = output_format.console()
        out.print(generation_table(evolution))
        if page is not None:
            out.print(f"Report: {page}")
        elif not evolution.status.history:
            out.print("No generation has finished: there is no report.")
    return _print_outcome(evolution, console)


def _run_to_end(request: RunRequest, state: LocalState, console: Console) -> EmotionEvolution:
    """Run the evolution with live progress, and return it with its last status."""
    evolution = state.load(request.evolution, request.uid)
    runner = ProcessRunner(state, request.data)
    with Progress(console, state) as progress:
        try:
            return run_local(evolution, runner, progress.update)
        except KeyboardInterrupt:
            console.print("Stopping: the stage saves its work …")
            raise RunnerError(
                "stopped; run the same command again to continue", ExitCode.TERMINATED
            ) from None
        finally:
            runner.close()


def _report_page(request: RunRequest, evolution: EmotionEvolution, console: Console) -> Path | None:
    """Write the report and return the path of its page; None if there is no report.

    An error is only printed: the report needs the storage, and an outage of the storage must not
    hide the result of the run.
    """
    if not evolution.status.history:
        return None
    try:
        return write_report(request, None)
    except RunnerError as error:
        console.print(f"No report: {error}", highlight=False, markup=False, soft_wrap=True)
        return None


def _print_outcome(evolution: EmotionEvolution, console: Console) -> int:
    """Print how the evolution ended, and return the exit code."""
    condition = evolution.status.condition(ConditionType.SUCCEEDED)
    if condition is None or not evolution.status.finished:
        console.print("Suspended: to continue, set `suspend: false` and run the same command.")
        return ExitCode.OK
    text = f"{condition.reason}: {condition.message}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    return output_format.exit_code(evolution)
