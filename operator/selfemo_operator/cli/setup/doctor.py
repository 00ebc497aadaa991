"""``selfemo doctor``: whether this machine has what selfemo needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from selfemo_api.contract import ExitCode
from selfemo_api.text.control_characters import json_text
from selfemo_operator.cli.output_format import print_line
from selfemo_operator.cli.session import SESSION
from selfemo_operator.cli.setup.finding import Finding, Mark
from selfemo_operator.cli.setup.machine import (
    disk_findings,
    gpu_finding,
    memory_finding,
    processor_finding,
)
from selfemo_operator.cli.setup.network import network_findings
from selfemo_operator.cli.setup.software import extra_findings, python_findings


def doctor(state: Path, *, network: bool, as_json: bool) -> ExitCode:
    """Print what is found, and return the exit code.

    Parameters
    ----------
    state
        The folder with the states of all evolutions.
    network
        Whether the model hub and S3 are asked.
    as_json
        Print a JSON object.
    """
    findings = list(find(state, network=network))
    problems = sum(finding.mark is Mark.PROBLEM for finding in findings)
    if as_json:
        content = {"problems": problems, "findings": [_json(finding) for finding in findings]}
        sys.stdout.write(json_text(content) + "\n")
    else:
        _print(findings, problems)
    return ExitCode.BAD_INPUT if problems else ExitCode.OK


def find(state: Path, *, network: bool) -> Iterator[Finding]:
    """Yield all that is found.

    Parameters
    ----------
    state
        The folder with the states of all evolutions.
    network
        Whether the model hub and S3 are asked.
    """
    gpu = gpu_finding()
    yield from python_findings()
    yield from extra_findings(gpus="none" not in gpu.text)
    yield gpu
    yield processor_finding()
    yield memory_finding()
    yield from disk_findings(state)
    yield from network_findings(services=network)


def _json(finding: Finding) -> dict[str, str]:
    return {
        "name": finding.name,
        "mark": finding.mark.value,
        "text": finding.text,
        "advice": finding.advice,
    }


def _print(findings: Sequence[Finding], problems: int) -> None:
    """Print a line for each finding. With ``--quiet``, only the problems are printed."""
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        if SESSION.quiet and finding.mark is not Mark.PROBLEM:
            continue
        advice = f": {finding.advice}" if finding.advice else ""
        line = f"{finding.mark:<7}  {finding.name:<{width}}  {finding.text}{advice}"
        print_line(line)
    count = {0: "no problems", 1: "1 problem"}.get(problems, f"{problems} problems")
    print_line(f"{count} found", stderr=True)
