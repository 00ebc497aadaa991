"""Writes the tables of docs/scale.md, with the functions of `selfemo check`.

``python -m tools.scale`` writes them; ``--check`` fails if they differ. ``--count FOLDER
--tokenizer MODEL`` prints the lengths of MELD's prompts, as in :data:`MELD`.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfemo_api.recipes import resolve
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.stages.check.architecture_size import QWEN3, DecoderSize, decoder_size
from selfemo_jobs.stages.check.devices import DEVICES, USUAL, Device
from selfemo_jobs.stages.check.estimate import (
    ASSUMED,
    RunEstimate,
    estimate_run,
    stage_seconds,
)
from selfemo_jobs.stages.check.token_counts import (
    StageTokens,
    generation_tokens,
    groups_of,
    kept_groups,
    train_tokens,
)
from selfemo_jobs.stages.check.traffic import parts_of
from selfemo_jobs.stages.check.workload import Workload, count_workload
from selfemo_operator.cli.run_estimate import short_bytes, short_count
from selfemo_study.adamatch_worker import LABELED_EXAMPLES, RATIO
from selfemo_study.row_evolution import evolution_of
from selfemo_study.study_config import Kind, Row, Study, load_study

_ROOT = Path(__file__).resolve().parent.parent
PAGE = _ROOT / "docs" / "scale.md"
STUDY, STUDY_MODEL = _ROOT / "studies" / "gpu.yaml", "Qwen3-0.6B"
_BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

#: MELD's numbers and lengths, by `--count` with the tokenizer of SmolLM2 and the recipe for Qwen3.
MELD = Workload(
    dialogues=1038,
    episodes=6595,
    evaluated=3719,
    selection=1109,
    labeled=972,
    recognizer_prompt=160.0,
    responder_prompt=156.9,
    views=[119.7, 169.8],
    response_prompt=160.0,
    answer=2.9,
    label=3.0,
    response=13.3,
)
RECIPE = "qwen3-lora-v1"
#: The dialogues of MELD with labels: a tenth, as in the studies.
LABELED = 104
#: Bytes of a part in the manifest of self-play, counted in the recorded run of the tests: its path,
#: hash and size, and its counts.
PART_ENTRY = 800
#: The prompts of a part for very many dialogues.
LARGE_PARTS = 65_536
#: Bytes of a candidate in the flywheel's process, and of a row in that of the stage Train, measured
#: by `benchmarks/flywheel.py` and `benchmarks/memory.py` (docs/performance.md).
FLYWHEEL_BYTES, ROW_BYTES = 40, 342
#: The operator's writes in a generation, and a core's seconds for one: `benchmarks/reconcile.py`.
WRITES, WRITE_SECONDS = 12, 0.036


@dataclass(frozen=True)
class Case:
    """A run, and how many of them there are."""

    title: str
    model: str
    work: Workload
    changes: dict[str, Any]
    runs: int = 1

    @property
    def spec(self) -> EvolutionSpec:
        """The resolved spec."""
        return resolved_spec(self.model, self.changes)

    def estimate(self, device: Device = USUAL) -> RunEstimate:
        """Return the estimate of one run."""
        return estimate_run(self.spec, self.work, decoder_size(QWEN3[self.model]), device)


def resolved_spec(model: str, changes: dict[str, Any]) -> EvolutionSpec:
    """Return the spec of a run on MELD with the recipe for GPUs."""
    spec = {
        "recipe": RECIPE,
        "model": {"uri": f"hf://Qwen/{model}"},
        "dataset": {"preset": "MELD", "uri": "data://meld", "labeledDialogues": LABELED},
        "storage": {"uri": "s3://selfemo/runs"},
        **changes,
    }
    return EvolutionSpec.model_validate(resolve(spec))


def cases() -> list[Case]:
    """Return the cases of the page."""
    many = MELD.model_copy(update={"dialogues": 10_000_000, "episodes": 80_000_000})
    shards = {"selfPlay": {"shards": 256}}
    return [
        Case("MELD, Qwen3-8B", "Qwen3-8B", MELD, {}),
        Case("10 million dialogues, Qwen3-8B", "Qwen3-8B", many, shards),
        Case("1,000 evolutions on MELD, Qwen3-0.6B", "Qwen3-0.6B", MELD, {}, runs=1000),
    ]


def token_table() -> str:
    """Return the tokens and hours of each stage."""
    rows = []
    for case in cases():
        estimate = case.estimate()
        for stage, tokens in estimate.tokens.items():
            rows.append(
                [
                    case.title,
                    stage.value,
                    *(
                        short_count(case.runs * number)
                        for number in (tokens.read, tokens.generated, tokens.trained)
                    ),
                    _number(case.runs * estimate.gpu_hours[stage]),
                ]
            )
        rows.append([case.title, "**all**", "", "", "", _number(case.runs * estimate.total_hours)])
    head = ["case", "stage", "tokens read", "generated", "trained", f"hours of one {USUAL.name}"]
    return _table(head, rows)


def device_table() -> str:
    """Return the hours on each device."""
    rows = [
        [
            case.title,
            *(_number(case.runs * case.estimate(device).total_hours) for device in DEVICES),
        ]
        for case in cases()
    ]
    figures = [
        ["*bfloat16, TFLOP/s*", *(f"{device.teraflops:g}" for device in DEVICES)],
        ["*memory, GB/s*", *(f"{device.bandwidth:g}" for device in DEVICES)],
    ]
    return _table(["GPU hours", *(device.name for device in DEVICES)], [*rows, *figures])


def traffic_table() -> str:
    """Return the bytes, requests, objects and writes."""
    rows = []
    for case in cases():
        traffic = case.estimate().traffic
        numbers = (traffic.jobs, traffic.pods, traffic.api_writes)
        rows.append(
            [
                case.title,
                *(
                    short_bytes(case.runs * size)
                    for size in (traffic.stored_bytes, traffic.written_bytes, traffic.read_bytes)
                ),
                short_count(case.runs * traffic.requests),
                *(f"{case.runs * number:,}" for number in numbers),
            ]
        )
    head = [
        "case",
        "stored",
        "written",
        "read",
        "S3 requests",
        "Jobs",
        "pods",
        "operator writes",
    ]
    return _table(head, rows)


def assumption_table() -> str:
    """Return what is assumed."""
    rows = [
        ["fraction of the peak FLOP/s when reading prompts", f"{ASSUMED.reading:g}"],
        ["fraction of the peak FLOP/s when training", f"{ASSUMED.training:g}"],
        ["fraction of the memory bandwidth when generating", f"{ASSUMED.bandwidth:g}"],
        ["completions that are generated concurrently", f"{ASSUMED.sequences}"],
        ["start of an engine or a training, excluding weights", f"{ASSUMED.start_seconds:g} s"],
        ["weights that are fetched and loaded per second", short_bytes(ASSUMED.load_bytes)],
    ]
    return _table(["assumption", "value"], rows)


def input_table() -> str:
    """Return what was counted."""
    rows = [
        ["dialogues per generation", f"{MELD.dialogues:,}"],
        ["target utterances in these dialogues", f"{MELD.episodes:,}"],
        ["evaluated utterances", f"{MELD.evaluated:,}"],
        ["labeled utterances", f"{MELD.labeled:,}"],
        ["tokens per recognizer prompt", f"{MELD.recognizer_prompt:g}"],
        ["tokens per responder prompt", f"{MELD.responder_prompt:g}"],
        [
            "tokens per judge prompt for a target, by view",
            ", ".join(f"{view:g}" for view in MELD.views),
        ],
        ["tokens per judge prompt for a response", f"{MELD.response_prompt:g}"],
        ["tokens per recognizer answer and per response", f"{MELD.answer:g}, {MELD.response:g}"],
    ]
    return _table(["quantity", "value"], rows)


def limit_table() -> str:
    """Return what ten million dialogues in one generation come to, and what holds them."""
    case = cases()[1]
    spec, work = case.spec, case.work
    parts = parts_of(spec, work)[Stage.SELF_PLAY]
    large = resolved_spec(
        case.model, {**case.changes, "overrides": {"selfPlay": {"batchPrompts": LARGE_PARTS}}}
    )
    fewer = parts_of(large, work)[Stage.SELF_PLAY]
    groups = sum(groups_of(spec, work).values())
    candidates = groups * spec.self_play.group_size
    rows = sum(kept_groups(spec, work).values()) * spec.self_play.group_size
    hours, judge = (
        case.estimate().gpu_hours[stage] / spec.stopping.max_generations
        for stage in (Stage.SELF_PLAY, Stage.SCORE)
    )
    running = 1000
    writes = running * WRITES / case_hours(cases()[2]) / 3600
    table = [
        [
            "the judge of one generation",
            f"{_number(judge)} GPU hours in one pod",
            "Score has no shards: this breaks first",
            "fewer dialogues per generation; fewer `overrides.reward.judge.samples`; one role",
        ],
        [
            "self-play of one generation",
            f"{_number(hours)} GPU hours",
            "takes days, longer than `deadlines` may allow",
            f"`selfPlay.shards: 256`: {_number(hours / 256)} hours per shard; 1,024 shards at most",
        ],
        [
            "the manifest of self-play",
            f"{parts:,} parts, {short_bytes(parts * PART_ENTRY)}",
            "each later stage reads it in full",
            f"`overrides.selfPlay.batchPrompts: {LARGE_PARTS:,}`: {fewer:,} parts, "
            f"{short_bytes(fewer * PART_ENTRY)}",
        ],
        [
            "the flywheel",
            f"{short_count(candidates)} candidates, {short_bytes(candidates * FLYWHEEL_BYTES)}",
            "the memory of one process",
            "`overrides.flywheel.runner: Ray`; or fewer dialogues per generation",
        ],
        [
            "the rows of training",
            f"{short_count(rows)} rows, {short_bytes(rows * ROW_BYTES)}",
            "the memory of one process, and the disk of each node",
            "`flywheel.keep`, or fewer dialogues per generation",
        ],
        [
            "1,000 concurrent evolutions",
            f"{writes:.1f} writes per second",
            f"an API server core handles about {1 / WRITE_SECONDS:.0f}",
            f"{math.ceil(writes * WRITE_SECONDS)} cores for the API server",
        ],
    ]
    return _table(["component", "size", "limit", "remedy"], table)


def case_hours(case: Case) -> float:
    """Return the hours of a generation of a case on one device."""
    return case.estimate().total_hours / case.spec.stopping.max_generations


def study_table() -> str:
    """Return the hours of each row of the study on one GPU."""
    study = load_study(STUDY)
    rows, total = [], 0.0
    for row in study.rows:
        hours = row_hours(study, row)
        total += hours
        rows.append([row.name, row.kind.value, _number(hours) if hours else "-"])
    rows.append(["**all**", "", _number(total)])
    return _table(["row", "kind", f"hours of one {USUAL.name}"], rows)


def row_hours(study: Study, row: Row) -> float:
    """Return the hours of a row of the study: its training, its evaluations, and their starts."""
    size = decoder_size(QWEN3[STUDY_MODEL])
    if size is None:
        raise ValueError(STUDY_MODEL)
    if row.kind is Kind.EVOLUTION:
        spec = evolution_of(study, row, study.seeds[0]).spec
        estimate = estimate_run(spec, MELD, size, USUAL)
        # generation 0 and the best one are evaluated on test, and on dev for the table
        return estimate.total_hours + 4 * _evaluation_hours(spec, size)
    spec = evolution_of(study, study.row(study.headline), study.seeds[0]).spec
    if row.kind in (Kind.TFIDF, Kind.CONSTANT):
        return 0.0
    warm = study.warm_start
    steps = row.steps or _evolution_steps(spec)
    example = sum(MELD.views, MELD.recognizer_prompt) / (1 + len(MELD.views)) + MELD.answer
    batches = {
        Kind.ON_POLICY: spec.training.batch_size,
        Kind.ADAMATCH: LABELED_EXAMPLES * (1 + RATIO),
    }
    count = steps * batches.get(row.kind, warm.batch_size)
    tokens = StageTokens(trained=count * example, completions=count, context=example)
    if row.kind is Kind.ON_POLICY:
        group = spec.self_play.group_size
        tokens = replace(tokens, read=count / group * example, generated=count * MELD.answer)
    seconds = stage_seconds(tokens, spec, size, USUAL) * max(1, len(row.learning_rates))
    return (seconds + ASSUMED.start_seconds) / 3600 + 2 * _evaluation_hours(spec, size)


def _evolution_steps(spec: EvolutionSpec) -> float:
    """Return the steps of one generation, which is how long a control trains."""
    tokens = train_tokens(spec, MELD)
    return tokens.completions / spec.training.batch_size


def _evaluation_hours(spec: EvolutionSpec, size: DecoderSize) -> float:
    tokens = generation_tokens(spec, MELD)[Stage.EVALUATE]
    return (stage_seconds(tokens, spec, size, USUAL) + ASSUMED.start_seconds) / 3600


TABLES = {
    "study": study_table,
    "limits": limit_table,
    "inputs": input_table,
    "assumptions": assumption_table,
    "tokens": token_table,
    "devices": device_table,
    "traffic": traffic_table,
}


def page_text(text: str) -> str:
    """Return the page with all tables as they are now."""
    return _BLOCK.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n\n{m[4]}", text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def counted(folder: Path, tokenizer: Path) -> Workload:
    """Return the numbers of MELD in a folder, with a model's tokenizer."""
    import tempfile

    from selfemo_jobs.prompts import prompt_set_of
    from selfemo_jobs.stages.check.findings import Findings
    from selfemo_jobs.stages.check.light_tokenizer import read_tokenizer
    from selfemo_jobs.stages.check.prompts import PromptContext
    from selfemo_jobs.stages.check.sources import read_sources
    from selfemo_jobs.stages.check.storage import Reader
    from selfemo_jobs.store import open_store_later

    changes = {
        "dataset": {
            "preset": "MELD",
            "uri": folder.resolve().as_uri(),
            "labeledDialogues": LABELED,
        },
        "storage": {"uri": "file:///runs"},
    }
    spec = resolved_spec("Qwen3-8B", changes)
    with tempfile.TemporaryDirectory() as work:
        reader = Reader(open_store_later(spec.storage))
        sources = read_sources(spec, reader, Path(work), Findings())
        made = PromptContext(spec, prompt_set_of(spec.model), read_tokenizer(tokenizer))
        return count_workload(made, sources)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.scale", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--count", type=Path, metavar="FOLDER")
    parser.add_argument("--tokenizer", type=Path, metavar="MODEL")
    arguments = parser.parse_args(argv)
    if arguments.count:
        print(counted(arguments.count, arguments.tokenizer))
        return 0
    text = PAGE.read_text()
    new = page_text(text)
    if arguments.check:
        if new != text:
            print(f"{PAGE} differs from its functions: run `make generate`", file=sys.stderr)
        return int(new != text)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
