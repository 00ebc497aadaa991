"""``selfemo run``: prints the plan, the live progress and the table of generations."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionType
from selfemo_api.text.control_characters import json_text
from selfemo_operator.cli import output_format
from selfemo_operator.cli.check import check_input, print_findings
from selfemo_operator.cli.entry_point import report
from selfemo_operator.cli.job_program import require_extras
from selfemo_operator.cli.output_format import print_line
from selfemo_operator.cli.report import write_report
from selfemo_operator.cli.run_options import RunRequest
from selfemo_operator.cli.runs.stop import PROGRAM
from selfemo_operator.cli.terminal.progress import Progress
from selfemo_operator.cli.terminal.score_table import (
    generation_table,
    plan_places,
    plan_table,
    summary,
)
from selfemo_operator.local.runner import ProcessRunner, run_local
from selfemo_operator.local.state import LocalState, RunnerError


class Stopped(KeyboardInterrupt):
    """SIGTERM ends the run as Ctrl-C does."""


def run_all(requests: Sequence[RunRequest], *, as_json: bool, dry_run: bool) -> int:
    """Run evolutions one after another, and return the exit code of the first that failed.

    An evolution that fails does not keep the next ones from running.

    Parameters
    ----------
    requests
        The evolutions to run.
    as_json
        Print the result of each as one JSON object in a line. Otherwise it is a table.
    dry_run
        Only check the input and print the plan.

    Raises
    ------
    RunnerError
        If Ctrl-C or SIGTERM stopped a run, or the only run cannot start.
    """
    failed: int = ExitCode.OK
    for request in requests:
        try:
            code = run(request, as_json=as_json, dry_run=dry_run)
        except RunnerError as error:
            stopped = error.exit_code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
            if stopped or len(requests) == 1:
                raise
            code = report(error)
        failed = failed or code
    return failed


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
        If the run cannot start, or if Ctrl-C or SIGTERM stopped it.
    """
    require_extras("jobs")
    console = output_format.console(stderr=True)
    if dry_run:
        findings = check_input(request)
        print_findings(findings)
        if findings.exit_code is not ExitCode.OK:
            return findings.exit_code
    _print_plan(request, console)
    if dry_run:
        return ExitCode.OK
    state = LocalState(request.state, PROGRAM)
    try:
        evolution = _run_to_end(request, state, console)
    finally:
        state.close()
    page = _report_page(request, evolution)
    if as_json:
        sys.stdout.write(json_text({**summary(evolution), "report": str(page or "")}) + "\n")
    else:
        output_format.console().print(generation_table(evolution))
        if page is not None:
            print_line(f"Report: {page}")
        elif not evolution.status.history:
            print_line("No generation has finished: there is no report.")
    return _print_outcome(evolution)


def _print_plan(request: RunRequest, console: Console) -> None:
    """Print what the run is going to do. Its paths are lines of their own, which do not break."""
    console.print(plan_table(request.evolution))
    for name, place in plan_places(request.evolution, request.state).items():
        print_line(f"{name}: {place}", stderr=True)


def _run_to_end(request: RunRequest, state: LocalState, console: Console) -> EmotionEvolution:
    """Run the evolution with live progress, and return it with its last status."""
    evolution = state.load(request.evolution, request.uid)
    runner = ProcessRunner(state, request.data)
    with _sigterm_stops(), Progress(console, state) as progress:
        try:
            return run_local(evolution, runner, progress.update)
        except KeyboardInterrupt as error:
            print_line("Stopping: the stage is saving its work …", stderr=True)
            code = ExitCode.TERMINATED if isinstance(error, Stopped) else ExitCode.INTERRUPTED
            raise RunnerError("stopped; run the same command again to continue", code) from None
        finally:
            runner.close()


@contextmanager
def _sigterm_stops() -> Iterator[None]:
    """Let SIGTERM, which `selfemo stop` sends, end the run once as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        signal.signal(number, signal.SIG_IGN)
        raise Stopped

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _report_page(request: RunRequest, evolution: EmotionEvolution) -> Path | None:
    """Write the report and return the path of its page; None if there is no report.

    An error is only printed: the report needs the storage, and an outage of the storage must not
    hide the result of the run.
    """
    if not evolution.status.history:
        return None
    try:
        return write_report(request, None)
    except RunnerError as error:
        print_line(f"No report: {error}", stderr=True)
        return None


def _print_outcome(evolution: EmotionEvolution) -> int:
    """Print how the evolution ended, and return the exit code."""
    condition = evolution.status.condition(ConditionType.SUCCEEDED)
    if condition is None or not evolution.status.finished:
        text = "Suspended: to continue, set `suspend: false` and run the same command."
        print_line(text, stderr=True)
        return ExitCode.OK
    print_line(f"{condition.reason}: {condition.message}", stderr=True)
    return output_format.exit_code(evolution)
