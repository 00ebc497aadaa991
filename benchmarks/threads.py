"""How much slower generation becomes beside other work, for several settings of OpenMP's threads.

``python benchmarks/threads.py [--repeats 3]`` runs the same generation (engine ``Transformers``, a
small model with random weights) in a process of its own for each setting: alone, and beside two
processes that each keep a processor busy. Settings take turns, so that other work on the machine
hits all of them. It prints one JSON line for each setting. All figures are ratios of wall times:
``alone`` to the fastest setting alone, ``loaded`` to the fastest setting beside the busy processes,
and ``slowdown`` of a setting beside them to itself alone. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from selfemo_jobs.runtime.threads import PASSIVE, SPIN_COUNT, WAIT_POLICY

#: The environment of each setting. ``libgomp`` alone spins 300,000 times, or for minutes where the
#: policy is ACTIVE.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "unset": {},
    "passive": {WAIT_POLICY: PASSIVE},
    "spin-1000": {SPIN_COUNT: "1000"},
    "spin-10000": {SPIN_COUNT: "10000"},
    "passive-spin-1000": {WAIT_POLICY: PASSIVE, SPIN_COUNT: "1000"},
    "one-thread": {"OMP_NUM_THREADS": "1"},
}
#: The setting that stages use, and the bounds that it must keep: a tenth above the fastest setting
#: alone, and a fifth above the fastest one beside other work.
DEFAULT = "passive-spin-1000"
ALONE, LOADED = 1.1, 1.2
BURNERS = 2
PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 16, 48, 16
#: How often a process repeats the work. A single time differs by half from the next one.
ROUNDS = 7


def run_work(folder: Path, train: bool) -> float:
    """Return the median seconds of a generation, or of some training steps, without loading."""
    import torch

    from selfemo_jobs.engines.interface import Sampling
    from selfemo_jobs.engines.transformers_engine import TransformersEngine

    engine = TransformersEngine(folder, max_model_len=PROMPT_TOKENS + ANSWER_TOKENS)
    prompts = [[(7 * i + j) % 500 + 10 for j in range(PROMPT_TOKENS)] for i in range(PROMPTS)]
    sampling = Sampling(n=4, temperature=1.0, top_p=1.0, max_tokens=ANSWER_TOKENS, stop=(), seed=1)
    engine.generate(prompts[:4], sampling)
    ids = torch.tensor(prompts)
    engine._model.requires_grad_(train)
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        if train:
            for _ in range(4):
                engine._model(input_ids=ids, labels=ids).loss.backward()
        else:
            engine.generate(prompts, sampling)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def make_model(folder: Path) -> None:
    """Write a model with layers as wide as SmolLM2's, and random weights."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from selfemo_jobs.base_models.tiny import make_tiny

    make_tiny(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=4,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _burn() -> None:
    value = 1.0
    while True:
        value = value * 1.0000001 % 3.0


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep some processors busy."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_burn, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def measure(folder: Path, setting: Mapping[str, str], work: str) -> float:
    """Return the seconds of one process with a setting."""
    known = {**os.environ}
    for name in (WAIT_POLICY, SPIN_COUNT, "OMP_NUM_THREADS"):
        known.pop(name, None)
    command = [sys.executable, __file__, "--child", str(folder), "--work", work]
    output = subprocess.run(command, env={**known, **setting}, check=True, capture_output=True)
    return float(output.stdout.split()[-1]) if work != "model" else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="processes of each setting")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--work", choices=("generate", "train", "model"), default="generate")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child and arguments.work == "model":
        make_model(arguments.child)
        return
    if arguments.child:
        print(run_work(arguments.child, arguments.work == "train"))
        return
    best: dict[tuple[str, bool], float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(folder, {}, "model")  # what its libraries print stays out of standard output
        for _ in range(arguments.repeats):
            for setting in arguments.settings:
                for loaded in (False, True):
                    with busy_processes(BURNERS if loaded else 0):
                        seconds = measure(folder, SETTINGS[setting], arguments.work)
                    key = setting, loaded
                    best[key] = min(best.get(key, seconds), seconds)
    fastest = {loaded: min(best[s, loaded] for s in arguments.settings) for loaded in (False, True)}
    for setting in arguments.settings:
        alone, loaded = best[setting, False], best[setting, True]
        figures = {
            "alone": round(alone / fastest[False], 3),
            "loaded": round(loaded / fastest[True], 3),
            "slowdown": round(loaded / alone, 2),
        }
        line = {"name": f"threads-{arguments.work}-{setting}", "unit": "ratio", **figures}
        if setting == DEFAULT:
            line["holds"] = figures["alone"] <= ALONE and figures["loaded"] <= LOADED
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
