"""The stage Check: it finds the problems of a run's input before anything costly starts.

It looks at everything, and reports all problems at once. It needs no GPU, downloads no weights, and
does not import torch, so that it takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfemo_api.metrics import CheckMetric
from selfemo_api.schema.rules import check_resolved
from selfemo_api.spec import EvolutionSpec, Use
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.stage_prompts import load_prompts
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.machine import (
    check_gpus,
    check_installed,
    main_memory,
    runs_here,
)
from selfemo_jobs.stages.check.memory import check_memory, model_size
from selfemo_jobs.stages.check.model import CheckedModel, check_model
from selfemo_jobs.stages.check.prompts import (
    PromptContext,
    check_answer_lengths,
    check_chat_template,
    check_labels,
    check_prompt_lengths,
    check_templates,
)
from selfemo_jobs.stages.check.sources import ReadSource, label_prior, read_sources
from selfemo_jobs.stages.check.storage import check_storage
from selfemo_jobs.store import Store, UnopenedStore

log = logging.getLogger(__name__)

#: Is called with the number of steps that are done, and of all steps.
Progress = Callable[[int, int], None]

#: The parts of the spec that the result follows from. A problem may be in any part, but then there
#: is no result.
RELEVANT = (
    "dataset",
    "model",
    "selfPlay",
    "reward.judge",
    "flywheel.runner",
    "training",
    "resources",
    "evaluation",
    "storage.checksums",
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
    config = context.config
    findings = Findings()
    output = find_problems(
        config.spec, context.store, config.output, context.work, findings, context.progress
    )
    for finding in findings.problems:
        log.error("%s", finding)
    for finding in findings.unavailable:
        log.error("%s: not checked: %s", finding.field, finding.message)
    for finding in findings.warnings:
        log.warning("%s", finding)
    findings.raise_if_any()
    return output


def find_problems(
    spec: EvolutionSpec,
    store: Store,
    folder: str,
    work: Path,
    findings: Findings,
    progress: Progress = lambda _done, _total: None,
) -> StageOutput:
    """Return what is in the input, and find all that is wrong with it.

    Parameters
    ----------
    spec
        The resolved spec.
    store
        The run's store. It may be unopened.
    folder
        The URI of a folder in the storage, for an object that is written and removed again.
    work
        The scratch folder.
    findings
        The problems and warnings are added to it.
    progress
        Is called after each step.
    """
    steps = 5
    for problem in check_resolved(spec):
        findings.problem(problem.field.removeprefix("spec.") or "spec", problem.message)
    check_installed(spec, findings)
    gpus = check_gpus(spec, findings)
    progress(1, steps)
    working = check_storage(store, folder, findings)
    readable = working or UnopenedStore(store.storage, BadInput("the storage has a problem"))
    progress(2, steps)
    sources = read_sources(spec, working, work, findings)
    progress(3, steps)
    model = check_model(spec, readable, work, findings)
    progress(4, steps)
    _check_prompts(spec, readable, model, sources, findings)
    if model.tensors:
        check_memory(
            spec,
            model_size(spec, model.config, model.tensors),
            findings,
            main_memory=main_memory() if runs_here() else None,
            gpu_memory=gpus,
        )
    progress(5, steps)
    return _output(spec, model, sources, findings)


def _check_prompts(
    spec: EvolutionSpec,
    store: Store,
    model: CheckedModel,
    sources: list[ReadSource],
    findings: Findings,
) -> None:
    """Check the prompt set; with the model's tokenizer, also the lengths of prompts and labels."""
    prompts = None
    with findings.collecting("model.prompts"):
        prompts = load_prompts(spec.model, store)
    if prompts is None:
        return
    check_labels(spec, prompts, findings)
    rendered = check_templates(spec, prompts, findings)
    if model.tokenizer is None:
        return
    made = PromptContext(spec, prompts, model.tokenizer)
    check_answer_lengths(made, findings)
    if check_chat_template(made, findings) and rendered:
        check_prompt_lengths(made, sources, findings)


def _output(
    spec: EvolutionSpec, model: CheckedModel, sources: list[ReadSource], findings: Findings
) -> StageOutput:
    turns = [t for source in sources for dialogue in source.dialogues for t in dialogue.turns]
    labeled = [
        turn
        for source in sources
        if source.source.use is Use.LABELED
        for dialogue in source.dialogues
        for turn in dialogue.turns
        if turn.labels
    ]
    metrics: dict[str, float] = {
        CheckMetric.DIALOGUES: sum(len(source.dialogues) for source in sources),
        CheckMetric.UTTERANCES: len(turns),
        CheckMetric.LABELED_UTTERANCES: len(labeled),
        CheckMetric.PROBLEMS: len(findings.problems),
        CheckMetric.WARNINGS: len(findings.warnings),
    }
    if model.tensors:
        metrics[CheckMetric.PARAMETERS] = model.parameters
    report: dict[str, Any] = {"warnings": [str(finding) for finding in findings.warnings]}
    return StageOutput(
        metrics=metrics, label_prior=label_prior(spec.dataset.labels, sources), report=report
    )


PROGRAM = StageProgram(stage=Stage.CHECK, work=run_check, relevant=RELEVANT, always_runs=True)
