"""``python -m selfemo_jobs.stages.check.dry_run --config FILE``: the check without a run.

It prints what it finds as one JSON object. Nothing stays in the storage.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfemo_api.contract import ExitCode, StageConfig
from selfemo_api.stages import Stage
from selfemo_api.text.control_characters import json_text, printable_lines
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.context import StageOutput
from selfemo_jobs.runtime.logging_setup import configure_logging
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.runtime.program import read_config
from selfemo_jobs.stages.check.findings import Finding, Findings
from selfemo_jobs.stages.check.stage import find_problems
from selfemo_jobs.store import open_store_later


def dry_run(config: StageConfig) -> tuple[StageOutput, Findings]:
    """Return what is in the input of a run, and what is wrong with it.

    Parameters
    ----------
    config
        The configuration of the check.
    """
    findings = Findings()
    with tempfile.TemporaryDirectory() as work:
        store = open_store_later(config.spec.storage)
        output = find_problems(config, store, Path(work), findings)
    return output, findings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with command-line arguments; return its exit code."""
    die_with_parent()
    configure_logging(Stage.CHECK.value)
    parser = argparse.ArgumentParser(prog="python -m selfemo_jobs.stages.check.dry_run")
    parser.add_argument("--config", required=True, type=Path, help="a JSON file")
    try:
        config = read_config(parser.parse_args(argv).config, Stage.CHECK)
    except BadInput as error:
        sys.stderr.write(f"{printable_lines(str(error))}\n")
        return ExitCode.BAD_INPUT
    output, findings = dry_run(config)
    sys.stdout.write(json_text(_report(output, findings)) + "\n")
    if findings.problems:
        return ExitCode.BAD_INPUT
    return ExitCode.UNAVAILABLE if findings.unavailable else ExitCode.OK


def _report(output: StageOutput, findings: Findings) -> dict[str, Any]:
    """Return the report as JSON."""
    return {
        "problems": _lines(findings.problems),
        "unavailable": _lines(findings.unavailable),
        "warnings": _lines(findings.warnings),
        "metrics": output.metrics,
        "labelPrior": output.label_prior,
    }


def _lines(findings: Sequence[Finding]) -> list[dict[str, str]]:
    return [{"field": finding.field, "message": finding.message} for finding in findings]


if __name__ == "__main__":
    sys.exit(main())
