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
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_api.text.control_characters import json_text, printable_lines
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.context import StageOutput
from selfemo_jobs.runtime.logging_setup import configure_logging
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.runtime.program import read_config
from selfemo_jobs.stages.check.architecture_size import DecoderSize
from selfemo_jobs.stages.check.devices import USUAL, find_device
from selfemo_jobs.stages.check.estimate import RunEstimate, estimate_run
from selfemo_jobs.stages.check.findings import Finding, Findings
from selfemo_jobs.stages.check.machine import local_gpu_name, runs_here
from selfemo_jobs.stages.check.stage import DECODER, WORKLOAD, find_problems
from selfemo_jobs.stages.check.workload import Workload
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
    report = _report(output, findings)
    estimate = estimate_of(config.spec, output)
    if estimate is not None:
        report["estimate"] = estimate.to_json()
    sys.stdout.write(json_text(report) + "\n")
    if findings.problems:
        return ExitCode.BAD_INPUT
    return ExitCode.UNAVAILABLE if findings.unavailable else ExitCode.OK


def estimate_of(spec: EvolutionSpec, output: StageOutput) -> RunEstimate | None:
    """Return what a run takes; None if its input has problems, or its tokenizer is not known.

    The hours are those of the GPU of this machine, or of a usual one.

    Parameters
    ----------
    spec
        The resolved spec.
    output
        The output of the check.
    """
    if WORKLOAD not in output.report:
        return None
    work = Workload.model_validate(output.report[WORKLOAD])
    decoder = output.report.get(DECODER)
    size = DecoderSize(**decoder) if decoder else None
    device = find_device(local_gpu_name()) if runs_here() else None
    return estimate_run(spec, work, size, device or USUAL)


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
