"""Tokens that Score and Evaluate read in the generations of a study, with and without kept states.

``PYTHONPATH=. python benchmarks/tokens.py --model FOLDER [--dialogues 40] [--generations 4]`` plays
the row `main` of studies/meld.yaml on some of its training dialogues: each generation plays all of
them again. The judge of the first generation is the given model (six layers of SmolLM2, of which
one is trained); that of each later one has another last layer, as after a promotion. Its readings
of the targets are drawn twice, part by part, in turns: by an engine that reads each prompt whole,
and by one that keeps what the layers below the trained ones make of it. Evaluate reads its share of
the dev utterances.

Tokens are counted in the model: those that a layer reads, padding included, as a share of all
layers. It prints a JSON line for each generation and one for all. ``--count-only`` instead counts
the prompts of the whole study with the tokenizer, without padding and without a model's run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from selfemo_api.contract import StageConfig
from selfemo_api.seeds import derive_seed, stage_seed
from selfemo_api.spec import EvolutionSpec, Source
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.load import load_dialogues
from selfemo_jobs.engines import transformers_engine
from selfemo_jobs.engines.interface import Completion
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.inference.predictions import greedy_sampling, labeled_prompts
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.schemas import CANDIDATES
from selfemo_jobs.stages.score.judge import JudgeReader
from selfemo_jobs.stages.score.kept_states import KeptStates, open_kept_states
from selfemo_jobs.stages.selfplay.dialogue_state import initial_state
from selfemo_jobs.stages.selfplay.episodes import (
    SourceDialogues,
    plan_episodes,
    split_into_parts,
)
from selfemo_jobs.stages.selfplay.self_player import SelfPlayer
from selfemo_jobs.store import open_store

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "studies" / "meld.yaml"
GOAL = 2.0
RUN = "default/bench-00000000"


def spec_of(model: Path, storage: Path) -> EvolutionSpec:
    """Return the spec of the study's row `main`."""
    from selfemo_api.evolution import EmotionEvolution
    from selfemo_study.row_evolution import evolution_document
    from selfemo_study.study_config import load_study

    study = load_study(STUDY)
    document = evolution_document(study, study.row("main"), study.seeds[0])
    document["spec"]["model"]["uri"] = model.absolute().as_uri()
    document["spec"]["storage"] = {"uri": storage.absolute().as_uri()}
    return EmotionEvolution.model_validate(document).spec


class Tokens:
    """Counts the tokens that the layers of a model read."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._layers = engine.model.get_decoder().layers
        self._read = 0
        for layer in self._layers:
            layer.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _layer: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        states = arguments[0] if arguments else options["hidden_states"]
        self._read += states.shape[0] * states.shape[1]

    def take(self) -> float:
        """Return the tokens since the last call: those of all layers, by the number of layers."""
        tokens, self._read = self._read / len(self._layers), 0
        return tokens


@dataclass
class Side:
    """The figures of one side in a generation."""

    score: float = 0.0
    """Tokens that Score reads."""
    evaluate: float = 0.0
    seconds: float = 0.0
    """Processor time of Score."""
    readings: list[np.ndarray] = field(default_factory=list)

    @property
    def tokens(self) -> float:
        return self.score + self.evaluate


def sources_of(spec: EvolutionSpec, data: Path, limit: int | None) -> list[SourceDialogues]:
    """Return the self-play sources of the study, with as many dialogues of each as are used."""
    sources = []
    for source in spec.dataset.self_play:
        dialogues = read(spec, source, data, labels=source.use_labels)
        share = None if limit is None else max(1, len(dialogues) * limit // 1038)
        sources.append(SourceDialogues(source.name, dialogues[:share], source.use_labels))
    return sources


def read(spec: EvolutionSpec, source: Source, data: Path, *, labels: bool) -> list[Any]:
    return load_dialogues(
        spec.dataset, source, data / source.uri.rpartition("/")[2], read_labels=labels
    )


def parts_of(
    spec: EvolutionSpec, engine: Any, sources: list[SourceDialogues], generation: int
) -> Iterator[pa.Table]:
    """Yield the recognizer groups of each part of a generation. Their answers are empty."""
    player = SelfPlayer(engine, spec, generation)
    seed = stage_seed(spec.seed, generation, Stage.SELF_PLAY)
    plan = plan_episodes(sources, spec.self_play, spec.dataset.labels, seed)
    answers = [Completion((0,), (0.0,), "", finished=True)] * spec.self_play.group_size
    for part in split_into_parts(plan, spec.self_play):
        requests = [player.recognizer_request(initial_state(episode), 0) for episode in part]
        rows = [row for request in requests for row in player._recognizer_rows(request, answers)]
        yield pa.Table.from_pylist(rows, schema=CANDIDATES)


def other_judge(model: Path, folder: Path, generation: int) -> Path:
    """Write the judge of a later generation: the last layer has changed."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(generation)
    last = max(int(name.split(".")[2]) for name in weights if ".layers." in name)
    for name, weight in weights.items():
        if f".layers.{last}." in name:
            noise = torch.randn(weight.shape) * weight.float().std() * 0.05
            weights[name] = (weight.float() + noise).to(weight.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def play_generation(
    spec: EvolutionSpec,
    judge: Path,
    data: Path,
    sources: list[SourceDialogues],
    generation: int,
    folder: Path,
    limit: int,
) -> tuple[Side, Side]:
    """Return the figures of a generation without kept states, and with them."""
    arguments = TransformersArgs.parse(spec.self_play.engine_args)
    engines = [TransformersEngine(judge, arguments, max_model_len=512) for _ in range(2)]
    counts = [Tokens(engine) for engine in engines]
    readers = [JudgeReader(engine, spec) for engine in engines]
    kept = open_states(spec, engines[1], readers[1], generation, folder)
    sides = Side(), Side()
    for number, table in enumerate(parts_of(spec, engines[0], sources, generation)):
        seed = derive_seed(stage_seed(spec.seed, generation, Stage.SCORE), str(number))
        order = [0, 1] if (number + generation) % 2 else [1, 0]
        for i in order:
            began = time.process_time()
            sides[i].readings.append(readers[i].read(table, seed, "part").targets)
            if i:
                kept.put(f"part-{number:05d}.parquet")
            sides[i].seconds += time.process_time() - began
    for side, count in zip(sides, counts, strict=True):
        side.score = count.take()
    dev = read(spec, spec.dataset.evaluation[0], data, labels=True)
    dev = dev[: max(1, len(dev) * limit // 1038)]
    prompts = labeled_prompts(
        dev, spec.dataset.labels, spec.dataset.context, spec.model, engines[0].tokenizer
    )
    sampling = greedy_sampling(spec.model, spec.self_play.max_tokens.recognizer)
    answers = [e.generate([p.prompt_ids for p in prompts], sampling) for e in engines]
    assert answers[0] == answers[1]
    for side, count, engine in zip(sides, counts, engines, strict=True):
        side.evaluate = count.take()
        engine.close()
    return sides


def open_states(
    spec: EvolutionSpec, engine: Any, reader: JudgeReader, generation: int, folder: Path
) -> KeptStates:
    config = StageConfig(
        stage=Stage.SCORE,
        run=RUN,
        generation=generation,
        seed=0,
        spec=spec,
        policy_uri=spec.model.uri,
        judge_uri=spec.model.uri,
        output=f"{spec.storage.uri}/{RUN}/generations/{generation:03d}/score",
    )
    context = StageContext(config, open_store(spec.storage), 0, 1, folder / f"work-{generation}")
    kept = open_kept_states(context, engine, reader.max_tokens)
    assert kept is not None
    reader.use_states(kept.states)
    return kept


def print_line(name: str, before: Side, after: Side, **more: Any) -> None:
    ratio = before.tokens / after.tokens
    line = {
        "name": name,
        "value": round(ratio, 2),
        "unit": "x fewer tokens",
        "before": {"score": round(before.score), "evaluate": round(before.evaluate)},
        "after": {"score": round(after.score), "evaluate": round(after.evaluate)},
        "cpuSecondsOfScore": [round(before.seconds, 1), round(after.seconds, 1)],
        **more,
    }
    print(json.dumps(line), flush=True)


def count_only(spec: EvolutionSpec, model: Path, data: Path, generations: int) -> None:
    """Print how many tokens the prompts of the whole study have."""

    class Encoder:
        tokenizer = load_tokenizer(model)

    sources = sources_of(spec, data, None)
    score: dict[tuple[int, ...], int] = {}
    for table in parts_of(spec, Encoder(), sources, 1):
        views = {tuple(p) for prompts in table["views"].to_pylist() for p in prompts}
        for prompt in views:
            score[prompt] = score.get(prompt, 0) + 1
    dev = read(spec, spec.dataset.evaluation[0], data, labels=True)
    prompts = labeled_prompts(
        dev, spec.dataset.labels, spec.dataset.context, spec.model, Encoder.tokenizer
    )
    evaluate = sum(len(p.prompt_ids) for p in prompts)
    read_each = sum(len(prompt) * times for prompt, times in score.items())
    once = sum(map(len, score))
    ordered = sorted(score)
    from selfemo_jobs.acceleration.shared_prefixes import shared_share

    layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
    trained = spec.training.train_layers / layers
    before = generations * (read_each + evaluate)
    after = once * (1 - trained) + generations * (read_each * trained + evaluate)
    line = {
        "name": f"tokens of {generations} generations of studies/meld.yaml, counted",
        "value": round(before / after, 2),
        "unit": "x fewer tokens",
        "goal": GOAL,
        "holds": before / after >= GOAL,
        "scorePrompts": len(ordered),
        "scoreTokens": read_each,
        "distinctTokens": once,
        "sharedBeginnings": round(shared_share(ordered), 3),
        "evaluateTokens": evaluate,
        "laterGeneration": round((read_each + evaluate) / (read_each * trained + evaluate), 2),
    }
    print(json.dumps(line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--meld", type=Path, default=ROOT.parent / "shared" / "data" / "meld")
    parser.add_argument("--dialogues", type=int, default=40, help="of the 1,038 for training")
    parser.add_argument("--generations", type=int, default=4)
    parser.add_argument("--count-only", action="store_true")
    arguments = parser.parse_args()
    transformers_engine.LEAST_SHARE = 1.1  # as before: nothing is shared between prompts
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        spec = spec_of(arguments.model, folder / "store")
        if arguments.count_only:
            count_only(spec, arguments.model, arguments.meld, arguments.generations)
            return
        sources = sources_of(spec, arguments.meld, arguments.dialogues)
        all_before, all_after = Side(), Side()
        for generation in range(1, arguments.generations + 1):
            judge = arguments.model
            if generation > 1:
                judge = other_judge(judge, folder / f"judge-{generation}", generation)
            before, after = play_generation(
                spec, judge, arguments.meld, sources, generation, folder, arguments.dialogues
            )
            pairs = zip(before.readings, after.readings, strict=True)
            equal = [np.mean(np.sort(a, axis=1) == np.sort(b, axis=1)) for a, b in pairs]
            print_line(f"tokens of generation {generation}", before, after,
                       equalReadings=round(float(np.mean(equal)), 5))  # fmt: skip
            for total, side in ((all_before, before), (all_after, after)):
                total.score += side.score
                total.evaluate += side.evaluate
                total.seconds += side.seconds
        ratio = all_before.tokens / all_after.tokens
        size = sum(file.stat().st_size for file in folder.glob("store/**/prompt-states/*/*"))
        print_line("tokens of all generations", all_before, all_after, goal=GOAL,
                   holds=ratio >= GOAL, keptBytes=size)  # fmt: skip


if __name__ == "__main__":
    main()
