"""Times the measure of expression against the predictions of the same evaluation.

Both use one loaded model, as in generation 0, and take turns in who is first. The predictions are
those of the selection dataset: prompts, greedy answers, their table. The measure is what the stage
adds: responses to the contexts, and the judge's readings of them and of human turns. Loading is not
timed; after generation 0 the stage loads the judge, too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.load import load_source
from selfemo_jobs.engines import open_engine
from selfemo_jobs.engines.interface import TextEngine
from selfemo_jobs.inference.predictions import (
    greedy_sampling,
    labeled_prompts,
    prediction_table,
)
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_description import evaluation_arguments
from selfemo_jobs.models.model_reference import ReferenceOptions, resolve_model
from selfemo_jobs.stages.evaluate.expression import completion_tokens, draw_sample
from selfemo_jobs.stages.evaluate.expression_readings import (
    human_targets,
    read_targets,
    respond,
    response_targets,
)

#: The measure is to stay below the work of the predictions of the selection dataset alone.
GOAL = 1.0
ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "examples"


def spec_of(roles: list[Role]) -> EvolutionSpec:
    """Return the spec of the demo, in which the responder plays."""
    document = yaml.safe_load((DEMO / "demo.yaml").read_text())
    spec = EmotionEvolution.model_validate(document).spec
    play = spec.self_play.model_copy(update={"roles": roles})
    return spec.model_copy(update={"self_play": play})


def predict(engine: TextEngine, spec: EvolutionSpec, dialogues: list[Dialogue]) -> None:
    labels = spec.dataset.labels
    prompts = labeled_prompts(dialogues, labels, spec.dataset.context, spec.model, engine.tokenizer)
    sampling = greedy_sampling(spec.model, spec.self_play.max_tokens.recognizer)
    groups = engine.generate([prompt.prompt_ids for prompt in prompts], sampling)
    prediction_table(prompts, [group[0] for group in groups], labels)


def measure(engine: TextEngine, spec: EvolutionSpec, dialogues: list[Dialogue]) -> int:
    """Measure expression; return the number of tokens of the responses."""
    sample = draw_sample(spec, "dev", dialogues)
    responses = respond(engine, spec, sample.contexts, seed=0)
    past = spec.dataset.context.past
    targets = response_targets(responses, dialogues, past)
    read_targets(engine, spec, [*targets, *human_targets(sample.humans, past)])
    return int(sum(responses["tokens"].to_pylist()))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default="package://smollm2?layers=6", help="a folder, or a reference"
    )
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    spec = spec_of([Role.RECOGNIZER, Role.RESPONDER])
    (source, *_) = spec.dataset.evaluation
    path = DEMO / source.uri.removeprefix("data://")
    dialogues = load_source(source, spec.dataset.labels, path, read_labels=True)
    folder = Path(arguments.model)
    if not folder.is_dir():
        options = ReferenceOptions(labels=list(spec.dataset.labels))
        folder, _ = resolve_model(arguments.model, options)
    engine = open_engine(
        spec.evaluation_engine,
        folder,
        engine_args=evaluation_arguments(spec),
        max_model_len=spec.model.max_prompt_tokens
        + completion_tokens(load_tokenizer(folder), spec),
        seed=0,
    )
    measure(engine, spec, dialogues[:8])  # the first batch compiles
    predictions, expressions = [], []
    for repeat in range(arguments.repeats):
        sides = [
            (predictions, lambda: predict(engine, spec, dialogues)),
            (expressions, lambda: measure(engine, spec, dialogues)),
        ]
        for times, work in sides if repeat % 2 else reversed(sides):
            times.append(timed(work))
    sample = draw_sample(spec, "dev", dialogues)
    tokens = measure(engine, spec, dialogues)
    value = min(wall for wall, _ in expressions) / min(wall for wall, _ in predictions)
    by_cpu = min(cpu for _, cpu in expressions) / min(cpu for _, cpu in predictions)
    turns = sum(bool(turn.labels) for dialogue in dialogues for turn in dialogue.turns)
    line = {
        "name": f"expression: its work over that of the predictions of {turns} utterances "
        f"({folder.name}, {sample.responses} responses of "
        f"{tokens / sample.responses:.0f} tokens, {len(sample.humans)} human turns)",
        "value": round(value, 3),
        "unit": "x",
        "goal": GOAL,
        "holds": value <= GOAL,
        "seconds": round(min(wall for wall, _ in expressions), 2),
        "predictionSeconds": round(min(wall for wall, _ in predictions), 2),
        "byCpuTime": round(by_cpu, 3),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
