"""Times `Recognizer.predict` against the bare engine on the same prompts.

Both use one loaded model. They take turns part by part, and in who is first. The recognizer's side
predicts a part of the turns as `selfemo predict` does: it builds and encodes prompts, gets answers,
parses them and, in the second line, computes the probability of each label. The bare side completes
the same prompts, already encoded, in one call of `engine.generate`. Loading is not timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import DataFormat, Source, Use
from selfemo_jobs.datasets.load import load_source
from selfemo_jobs.inference import Prediction, Recognizer, Target
from selfemo_jobs.inference.targets import dialogue_targets
from selfemo_jobs.models.model_reference import ReferenceOptions, resolve_model

GOAL = 0.95
DIALOGUES = Path(__file__).resolve().parent.parent / "examples" / "demo" / "test.jsonl"
MODEL = "package://smollm2?layers=6"


def turns(path: Path, recognizer: Recognizer, count: int) -> list[Target]:
    source = Source(name="turns", use=Use.EVALUATION, uri=path.as_uri(), format=DataFormat.JSONL)
    dialogues = load_source(source, recognizer.labels, path, read_labels=False)
    context = recognizer.model.description.context
    targets = (target for dialogue in dialogues for target in dialogue_targets(dialogue, context))
    return list(islice(targets, count))


@dataclass
class Side:
    """The times of one side."""

    cpu_seconds: float = 0.0
    best: dict[int, float] = field(default_factory=dict)
    """Least wall time by part, in seconds."""
    best_cpu: dict[int, float] = field(default_factory=dict)
    """Least processor time by part, in seconds."""

    def time(self, part: int, work: Callable[[], object]) -> None:
        gc.collect()
        began, cpu = time.perf_counter(), time.process_time()
        work()
        cpu_seconds = time.process_time() - cpu
        seconds = time.perf_counter() - began
        self.cpu_seconds += cpu_seconds
        self.best[part] = min(self.best.get(part, seconds), seconds)
        self.best_cpu[part] = min(self.best_cpu.get(part, cpu_seconds), cpu_seconds)


def compare(
    recognizer: Recognizer, parts: list[list[Target]], repeats: int
) -> tuple[Side, Side, Side]:
    """Return the times of the bare engine, of labels, and of labels with probabilities."""
    engine, sampling = recognizer.model.engine, recognizer.sampling
    prompts = [recognizer.prompts(part) for part in parts]
    bare, labels, scored = Side(), Side(), Side()
    engine.generate(prompts[0][:8], sampling)  # the first batch compiles
    for repeat in range(repeats):
        for number, part in enumerate(parts):
            sides: list[tuple[Side, Callable[[], object]]] = [
                (bare, lambda n=number: engine.generate(prompts[n], sampling)),
                (labels, lambda p=part: recognizer.predict_targets(p, probabilities=False)),
                (scored, lambda p=part: recognizer.predict_targets(p)),
            ]
            first = (repeat + number) % len(sides)
            for side, work in [*sides[first:], *sides[:first]]:
                side.time(number, work)
    return bare, labels, scored


def check(recognizer: Recognizer, part: list[Target]) -> None:
    """Check that probabilities sum to 1, and change no label."""
    scored = recognizer.predict_targets(part)
    bare: list[Prediction] = recognizer.predict_targets(part, probabilities=False)
    if [p.labels for p in scored] != [p.labels for p in bare]:
        raise SystemExit("labels with probabilities differ from those without")
    if any(abs(sum(p.probabilities.values()) - 1.0) > 1e-6 for p in scored):
        raise SystemExit("the probabilities of a turn do not sum to 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL, help="a model reference")
    parser.add_argument("--dialogues", type=Path, default=DIALOGUES, help="a file of JSONL")
    parser.add_argument("--turns", type=int, default=192)
    parser.add_argument("--part", type=int, default=64, help="the number of turns of a part")
    parser.add_argument("--dtype", help="the number format. Default: that of the evaluation")
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    options = ReferenceOptions(labels=[] if arguments.model != MODEL else list(MELD))
    folder, description = resolve_model(arguments.model, options)
    decoding = description.decoding
    chosen = {"dtype": arguments.dtype} if arguments.dtype else {}
    engine_args = {"batch_size": decoding.batch_size, **decoding.engine_args, **chosen}
    with Recognizer(folder, description, engine_args=engine_args) as recognizer:
        targets = turns(arguments.dialogues.resolve(), recognizer, arguments.turns)
        parts = [targets[i : i + arguments.part] for i in range(0, len(targets), arguments.part)]
        check(recognizer, parts[0])
        bare, labels, scored = compare(recognizer, parts, arguments.repeats)
        tokens = statistics.mean(len(p) for part in parts for p in recognizer.prompts(part))
    for name, side, goal in (("labels", labels, GOAL), ("probabilities", scored, None)):
        # the best of each part counts, since other work on the machine only adds time
        value = statistics.mean(bare.best[part] / side.best[part] for part in bare.best)
        line = {
            "name": f"predict: {name} over the bare engine, turns a second ({folder.name}, "
            f"{engine_args.get('dtype', 'float32')}, "
            f"{len(targets)} turns of {tokens:.0f} tokens, {len(description.labels)} labels)",
            "value": round(value, 3),
            "unit": "x",
            **({"goal": goal, "holds": value >= goal} if goal else {}),
            "turnsPerSecond": round(len(targets) / sum(side.best.values()), 1),
            "bareTurnsPerSecond": round(len(targets) / sum(bare.best.values()), 1),
            # the same by processor time, on which other work has less influence
            "byCpuTime": round(
                statistics.mean(bare.best_cpu[p] / side.best_cpu[p] for p in bare.best_cpu), 3
            ),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
