"""``selfemo run``: the plan, live progress, the table of generations."""

from __future__ import annotations

import json
import sys

from rich.console import Console

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionType
from selfemo_operator.cli import output_format, report
from selfemo_operator.cli.run_options import Request
from selfemo_operator.cli.terminal.progress import Progress
from selfemo_operator.cli.terminal.score_table import generation_table, plan_table, summary
from selfemo_operator.local.runner import LocalCluster, run_local
from selfemo_operator.local.state import LocalState, RunnerError


def run(request: Request, *, as_json: bool, dry_run: bool) -> int:
    """Run an evolution to its end and return the exit code."""
    console = output_format.console(stderr=True)
    console.print(plan_table(request.evolution, request.state))
    if dry_run:
        return ExitCode.OK
    state = LocalState(request.state)
    try:
        evolution = _run(request, state, console)
    finally:
        state.close()
    page = report.write(request, None) if evolution.status.history else None
    if as_json:
        sys.stdout.write(json.dumps({**summary(evolution), "report": str(page or "")}) + "\n")
    else:
        out = output_format.console()
        out.print(generation_table(evolution))
        out.print(f"Report: {page}" if page else "No generation was finished: no report.")
    return _end(evolution, console)


def _run(request: Request, state: LocalState, console: Console) -> EmotionEvolution:
    evolution = state.load(request.evolution, request.uid)
    cluster = LocalCluster(state, request.data)
    with Progress(console, state) as progress:
        try:
            return run_local(evolution, cluster, progress.update)
        except KeyboardInterrupt:
            console.print("Stopping: the stage saves its work …")
            raise RunnerError(
                "stopped; the same command goes on from here", ExitCode.TERMINATED
            ) from None
        finally:
            cluster.close()


def _end(evolution: EmotionEvolution, console: Console) -> int:
    """Say how it ended, and return the exit code."""
    condition = evolution.status.condition(ConditionType.SUCCEEDED)
    if condition is None or not evolution.status.finished:
        console.print("Suspended: set `suspend: false` and run the same command to go on.")
        return ExitCode.OK
    console.print(f"{condition.reason}: {condition.message}", highlight=False, soft_wrap=True)
    return output_format.exit_code(evolution)
