"""Times the SelfPlay stage's loop on vLLM against bare `LLM.generate` on the same prompts.

Both use one loaded engine, in turns. The stage's side plays parts as the stage does: prompts built
and encoded, completions drawn, answers read, tables encoded and stored. The bare side is given all
prompts at once, already encoded, with the same sampling. Loading is left out of both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from selfemo_api.contract import StageConfig, stage_seed
from selfemo_api.labels import MELD
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage
from selfemo_jobs.engines.vllm_engine import VllmEngine
from selfemo_jobs.models.tiny import make_tiny
from selfemo_jobs.runtime import StageContext
from selfemo_jobs.selfplay.play import Play, cut_parts
from selfemo_jobs.selfplay.rollout import Table, opening
from selfemo_jobs.selfplay.stage import plan, play_parts
from selfemo_jobs.store import open_store

GOAL = 0.95
DIALOGUES = Path(__file__).resolve().parent.parent / "examples" / "demo" / "train.jsonl"


def spec_of(folder: Path, model: Path, arguments: argparse.Namespace) -> EvolutionSpec:
    source = {"name": "demo", "uri": DIALOGUES.as_uri(), "format": "JSONL"}
    return EvolutionSpec.model_validate(
        {
            "model": {"uri": model.as_uri(), "prompts": "compact-v1", "maxPromptTokens": 256},
            "dataset": {"labels": list(MELD), "selfPlay": [source], "evaluation": [source]},
            "storage": {"uri": (folder / "store").as_uri()},
            "selfPlay": {
                "dialogues": arguments.dialogues,
                "maxTokens": {"recogniser": 6, "responder": 24},
            },
        }
    )


def stage_side(context: StageContext, engine: VllmEngine, parts: list[list[Play]]) -> float:
    """Return the tokens a second of the stage's loop."""
    counts: dict[str, dict[str, int]] = {}
    began = time.perf_counter()
    play_parts(context, engine, parts, range(len(parts)), counts)
    seconds = time.perf_counter() - began
    return sum(count["tokens"] for count in counts.values()) / seconds


def bare_side(engine: VllmEngine, prompts: list, parameters: list) -> float:
    """Return the tokens a second of the library alone."""
    engine.llm.reset_prefix_cache()  # else it would reread what the last repeat has left there
    began = time.perf_counter()
    outputs = engine.llm.generate(prompts, parameters, use_tqdm=False)
    seconds = time.perf_counter() - began
    return sum(len(o.token_ids) for output in outputs for o in output.outputs) / seconds


def bare_input(
    engine: VllmEngine, spec: EvolutionSpec, parts: list[list[Play]]
) -> tuple[list, list]:
    """Return the stage's prompts and sampling as the library takes them."""
    table = Table(engine, spec, 1)
    prompts, parameters = [], []
    for number, part in enumerate(parts):
        scenes = [opening(play) for play in part]
        for role, ask in (
            (Role.RECOGNISER, table.ask_recogniser),
            (Role.RESPONDER, table.ask_responder),
        ):
            sampling = table.sampling(role, number)
            for index, scene in enumerate(scenes):
                prompts.append({"prompt_token_ids": list(ask(scene, 0).prompt)})
                parameters.append(engine.parameters(sampling, index))
    return prompts, parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a model; unset: the tiny one")
    parser.add_argument("--dialogues", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ.setdefault("SELFEMO_WORK", str(folder / "work"))
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
            anchor_uri=spec.model.uri,
            output=f"{spec.storage.uri}/bench",
        )
        context = StageContext(config, open_store(spec.storage), 0, 1, folder / "work")
        parts = cut_parts(plan(context), spec.self_play)
        engine = VllmEngine(model, engine_args={}, max_model_len=512, seed=0)
        prompts, parameters = bare_input(engine, spec, parts)
        play_parts(context, engine, [parts[0][:8]], [0], {})  # the first batch compiles
        ours, bare = [], []
        for _ in range(arguments.repeats):
            ours.append(stage_side(context, engine, parts))
            bare.append(bare_side(engine, prompts, parameters))
        engine.close()
    # pairs: what else the machine does hits both sides of a pair alike
    value = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    given = f"{model.name}, {len(prompts)} prompts"
    line = {
        "name": f"self-play: stage over bare vLLM, tokens a second ({given})",
        "value": round(value, 3),
        "unit": "x",
        "goal": GOAL,
        "holds": value >= GOAL,
        "tokensPerSecond": round(statistics.median(ours), 1),
        "bareTokensPerSecond": round(statistics.median(bare), 1),
        "pairs": [round(a / b, 3) for a, b in zip(ours, bare, strict=True)],
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
