"""The stage Check: it finds the problems of a run's input before anything costly starts.

It looks at everything, and reports all problems at once. It needs no GPU, downloads no weights, and
does not import torch, so that it takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfemo_api.contract import StageConfig
from selfemo_api.metrics import CheckMetric
from selfemo_api.schema.rules import check_resolved
from selfemo_api.spec import EvolutionSpec, Use
from selfemo_api.stages import Stage
from selfemo_jobs.models.resume import locate_model
from selfemo_jobs.prompts import PromptSet
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.stages.check.architecture_size import decoder_size
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.machine import (
    check_device,
    check_gpus,
    check_installed,
    main_memory,
    runs_here,
)
from selfemo_jobs.stages.check.memory import check_memory, model_size
from selfemo_jobs.stages.check.model import CheckedModel, check_model
from selfemo_jobs.stages.check.mounts import check_lasting_folders
from selfemo_jobs.stages.check.prompts import (
    PromptContext,
    check_answer_lengths,
    check_chat_template,
    check_labels,
    check_prompt_lengths,
    read_prompts,
)
from selfemo_jobs.stages.check.publishing import check_publish
from selfemo_jobs.stages.check.sources import (
    ReadSource,
    label_prior,
    read_sources,
    source_counts,
)
from selfemo_jobs.stages.check.storage import check_storage
from selfemo_jobs.stages.check.workload import count_workload
from selfemo_jobs.store import Store

log = logging.getLogger(__name__)

#: Is called with the number of steps that are done, and of all steps.
Progress = Callable[[int, int], None]

#: The parts of the spec that the result follows from: numbers, and the shares of the labels. With a
#: problem in any part, there is no result.
RELEVANT = (
    "dataset.labels",
    "dataset.columns",
    "dataset.labelMap",
    "dataset.sources.selfPlay",
    "dataset.sources.evaluation",
    "model.revision",
)
#: The report has, for `selfemo check`, the numbers that a run's cost follows from, and those of the
#: model.
WORKLOAD, DECODER = "workload", "decoder"
#: What the report has about the model: the name, and the key in the model's `config.json`.
_MODEL = (
    ("type", "model_type"),
    ("layers", "num_hidden_layers"),
    ("hiddenSize", "hidden_size"),
)


def run_check(context: StageContext) -> StageOutput:
    """Find all problems of the input.

    Parameters
    ----------
    context
        The context of the stage.

    Returns
    -------
    StageOutput
        The metrics, the shares of the labels, and the warnings.

    Raises
    ------
    BadInput
        If there are problems. The message has all of them.
    Unavailable
        If there are none, but a service did not answer.
    """
    findings = Findings()
    output = find_problems(context.config, context.store, context.work, findings, context.progress)
    for finding in findings.problems:
        log.error("%s", finding)
    for finding in findings.unavailable:
        log.error("%s: not checked: %s", finding.field, finding.message)
    for finding in findings.warnings:
        log.warning("%s", finding)
    findings.raise_if_any()
    # the next stages read the model that has no problem, even if another one becomes the best
    locate_model(context.config, context.store, context.config.spec.baseline_uri)
    return output


def find_problems(
    config: StageConfig,
    store: Store,
    work: Path,
    findings: Findings,
    progress: Progress = lambda _done, _total: None,
) -> StageOutput:
    """Return what is in the input, and find all that is wrong with it.

    Parameters
    ----------
    config
        The configuration of the check.
    store
        The run's store. It may be unopened.
    work
        The scratch folder.
    findings
        The problems and warnings are added to it.
    progress
        Is called after each step.
    """
    spec, steps = config.spec, 6
    for problem in check_resolved(spec):
        findings.problem(problem.field.removeprefix("spec.") or "spec", problem.message)
    check_installed(spec, findings)
    gpus = check_gpus(spec, findings)
    check_device(spec, findings)
    progress(1, steps)
    check_lasting_folders(spec, findings)
    reader = check_storage(store, config.output, findings)
    progress(2, steps)
    check_publish(config, reader, findings)
    progress(3, steps)
    sources = read_sources(spec, reader, work, findings)
    progress(4, steps)
    model = check_model(config, reader, work, findings)
    progress(5, steps)
    prompts = read_prompts(spec, reader, findings)
    made = None
    if prompts is not None:
        made = _check_prompts(spec, prompts, model, sources, findings)
    if model.tensors:
        check_memory(
            spec,
            model_size(spec, model.config, model.tensors),
            findings,
            main_memory=main_memory() if runs_here() else None,
            gpu_memory=gpus,
        )
    progress(6, steps)
    output = _output(spec, model, sources, findings)
    if made is not None and not findings.problems:
        output.report[WORKLOAD] = count_workload(made, sources).to_json()
        size = decoder_size(model.config, model.parameters or None)
        if size is not None:
            output.report[DECODER] = asdict(size)
    return output


def _check_prompts(
    spec: EvolutionSpec,
    prompts: PromptSet,
    model: CheckedModel,
    sources: list[ReadSource],
    findings: Findings,
) -> PromptContext | None:
    """Check the labels; with the model's tokenizer, also the lengths of prompts and labels.

    What prompts are made of is returned if they can be made.
    """
    check_labels(spec, prompts, findings)
    if model.tokenizer is None:
        return None
    made = PromptContext(spec, prompts, model.tokenizer)
    check_answer_lengths(made, findings)
    if not check_chat_template(made, findings):
        return None
    check_prompt_lengths(made, sources, findings)
    return made


def _output(
    spec: EvolutionSpec, model: CheckedModel, sources: list[ReadSource], findings: Findings
) -> StageOutput:
    counts = source_counts(sources)
    labeled = [source.source.name for source in sources if source.source.use is Use.LABELED]
    metrics: dict[str, float] = {
        CheckMetric.DIALOGUES: sum(len(source.dialogues) for source in sources),
        CheckMetric.UTTERANCES: sum(count["utterances"] for count in counts.values()),
        CheckMetric.LABELED_UTTERANCES: sum(counts[name]["labeled"] for name in labeled),
        CheckMetric.PROBLEMS: len(findings.problems),
        CheckMetric.WARNINGS: len(findings.warnings),
    }
    if model.tensors:
        metrics[CheckMetric.PARAMETERS] = model.parameters
    report: dict[str, Any] = {
        "warnings": [str(finding) for finding in findings.warnings],
        "sources": counts,
        "model": {name: model.config[key] for name, key in _MODEL if key in model.config},
    }
    return StageOutput(
        metrics=metrics, label_prior=label_prior(spec.dataset.labels, sources), report=report
    )


PROGRAM = StageProgram(stage=Stage.CHECK, work=run_check, relevant=RELEVANT, always_runs=True)
