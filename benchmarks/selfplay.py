"""Times the SelfPlay stage's loop on vLLM against bare `LLM.generate` on the same prompts.

Both use one loaded engine. They take turns part by part, and in who is first. The stage's side
plays a part as the stage does: it builds and encodes prompts, draws completions, parses answers,
and encodes and stores the table. The bare side completes the same prompts, already encoded, in one
call with the same sampling. Loading is not timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # standard output: JSON only

from selfemo_api.contract import StageConfig
from selfemo_api.dataset_labels import MELD
from selfemo_api.seeds import stage_seed
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage
from selfemo_jobs.base_models.tiny import make_tiny
from selfemo_jobs.engines.vllm_engine import VllmEngine
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.stages.selfplay.dialogue_state import initial_state
from selfemo_jobs.stages.selfplay.episodes import Episode, split_into_parts
from selfemo_jobs.stages.selfplay.self_player import SelfPlayer
from selfemo_jobs.stages.selfplay.stage import fetch_sources, plan_generation, play_parts
from selfemo_jobs.store import open_store

GOAL = 0.95
DIALOGUES = Path(__file__).resolve().parent.parent / "examples" / "demo" / "train.jsonl"


def spec_of(folder: Path, model: Path, arguments: argparse.Namespace) -> EvolutionSpec:
    sources = [
        {"name": use.lower(), "use": use, "uri": DIALOGUES.as_uri(), "format": "JSONL"}
        for use in ("SelfPlay", "Evaluation")
    ]
    return EvolutionSpec.model_validate(
        {
            "model": {"uri": model.as_uri(), "prompts": "compact-v1", "maxPromptTokens": 256},
            "dataset": {"labels": list(MELD), "sources": sources},
            "storage": {"uri": (folder / "store").as_uri()},
            "selfPlay": {
                "batchPrompts": 64,
                "dialogues": arguments.dialogues,
                "maxTokens": {"recognizer": 6, "responder": 24},
            },
        }
    )


def stage_side(context: StageContext, engine: VllmEngine, part: list[Episode], number: int) -> int:
    """Play a part as the stage does; return the number of tokens."""
    counts: dict[str, dict[str, int]] = {}
    play_parts(context, engine, {number: part}, [number], counts)
    return sum(count["tokens"] for count in counts.values())


def bare_side(engine: VllmEngine, prompts: list, parameters: list) -> int:
    """Complete the same prompts with the library; return the number of tokens."""
    engine.llm.reset_prefix_cache()  # otherwise it would use what the other side stored
    outputs = engine.llm.generate(prompts, parameters, use_tqdm=False)
    return sum(len(o.token_ids) for output in outputs for o in output.outputs)


def bare_input(engine: VllmEngine, spec: EvolutionSpec, part: list[Episode]) -> tuple[list, list]:
    """Return a part's prompts and sampling parameters in the library's form."""
    player = SelfPlayer(engine, spec, 1)
    states = [initial_state(episode) for episode in part]
    requests = [player.responder_request(state, 0) for state in states]
    requests += [player.recognizer_request(state, 0) for state in states]
    sampling = {role: player.sampling(role, 1) for role in Role}
    prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
    return prompts, [engine.parameters(sampling[r.role], i) for i, r in enumerate(requests)]


@dataclass
class Side:
    """The figures of one side."""

    tokens: int = 0
    cpu_seconds: float = 0.0
    rates: list[float] = field(default_factory=list)
    best: dict[int, float] = field(default_factory=dict)
    """Highest rate by part."""

    def time(self, part: int, work: Callable[[], int]) -> None:
        gc.collect()
        began, cpu = time.perf_counter(), time.process_time()
        tokens = work()
        self.cpu_seconds += time.process_time() - cpu
        seconds = time.perf_counter() - began
        self.tokens += tokens
        self.rates.append(tokens / seconds)
        self.best[part] = max(self.best.get(part, 0.0), tokens / seconds)


def compare(context: StageContext, engine: VllmEngine, repeats: int) -> tuple[Side, Side, int]:
    """Return both sides' figures and the number of prompts."""
    spec = context.config.spec
    plan = plan_generation(context, fetch_sources(context)[0])
    parts = [list(part) for part in split_into_parts(plan, spec.self_play)]
    inputs = [bare_input(engine, spec, part) for part in parts]
    bare_side(engine, *(side[:8] for side in inputs[0]))  # the first batch compiles
    ours, bare = Side(), Side()
    for repeat in range(repeats):
        for number, part in enumerate(parts):
            sides = [
                lambda p=part, n=number: ours.time(n, lambda: stage_side(context, engine, p, n)),
                lambda n=number: bare.time(n, lambda: bare_side(engine, *inputs[n])),
            ]
            for side in sides[:: 1 if (repeat + number) % 2 == 0 else -1]:
                side()
    return ours, bare, sum(len(prompts) for prompts, _ in inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a model (default: the tiny model)")
    parser.add_argument("--dialogues", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = arguments.model.resolve() if arguments.model else folder / "tiny"
        if not arguments.model:
            make_tiny(model)
        spec = spec_of(folder, model, arguments)
        config = StageConfig(
            stage=Stage.SELF_PLAY,
            run="default/bench-00000000",
            generation=1,
            seed=stage_seed(0, 1, Stage.SELF_PLAY),
            spec=spec,
            policy_uri=spec.model.uri,
            judge_uri=spec.model.uri,
            output=f"{spec.storage.uri}/bench",
        )
        context = StageContext(config, open_store(spec.storage), 0, 1, folder / "work")
        engine = VllmEngine(model, engine_args={}, max_model_len=512, seed=0)
        ours, bare, prompts = compare(context, engine, arguments.repeats)
        engine.close()
    # the best of each part counts, since other work on the machine only adds time
    value = statistics.mean(ours.best[part] / bare.best[part] for part in ours.best)
    pairs = [a / b for a, b in zip(ours.rates, bare.rates, strict=True)]
    load = f"{model.name}, {prompts} prompts"
    line = {
        "name": f"self-play: stage over bare vLLM, tokens a second ({load})",
        "value": round(value, 3),
        "unit": "x",
        "goal": GOAL,
        "holds": value >= GOAL,
        "tokensPerSecond": round(statistics.mean(ours.best.values()), 1),
        "bareTokensPerSecond": round(statistics.mean(bare.best.values()), 1),
        # the same by processor time, on which other work has less influence
        "byCpuTime": round((ours.tokens / ours.cpu_seconds) / (bare.tokens / bare.cpu_seconds), 3),
        "pairs": [round(pair, 3) for pair in pairs],
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
