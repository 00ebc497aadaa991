"""Builds tables of kept candidates whose log-probabilities come from the tiny model."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import pyarrow as pa

from selfemo_api.contract import StageConfig
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.manifest import Manifest, Part
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.runtime.tables import encode_table
from selfemo_jobs.stages.train.rollout_data import RolloutData
from selfemo_jobs.store import join, open_store
from selfemo_jobs.store.hashing import sha256

TEMPERATURE = 1.0


def kept_table(model: Path, groups: int, size: int, *, seed: int = 0, drift: float = 0.1) -> Any:
    """Return scored rows with random tokens and the log-probabilities of a model.

    `drift` is the standard deviation of the difference between recorded and true
    log-probabilities. Two engines differ in this way.
    """
    return _kept_table(str(model), groups, size, seed, drift)


def consensus_of(table: Any, rollouts: RolloutData) -> list[list[str] | None]:
    """Return the consensus of each recognizer group, and None for each responder group."""
    firsts = [table.slice(group[0], 1).to_pylist()[0] for group in rollouts.groups]
    return [row["consensus"] if row["role"] == "Recognizer" else None for row in firsts]


@functools.cache
def _kept_table(model: str, groups: int, size: int, seed: int, drift: float) -> pa.Table:
    chance = random.Random(seed)
    rows = []
    for group in range(groups):
        prompt = [chance.randrange(3, 300) for _ in range(chance.randrange(5, 30))]
        recognizer = group % 2 == 0
        completions = [
            [chance.randrange(3, 300) for _ in range(chance.randrange(1, 9))] for _ in range(size)
        ]
        rewards = [chance.random() for _ in range(size)]
        mean = sum(rewards) / size
        spread = (sum((r - mean) ** 2 for r in rewards) / size) ** 0.5
        for member, completion in enumerate(completions):
            rows.append(
                _row(f"g{group:04d}", recognizer, member, prompt, completion)
                | {"reward": rewards[member], "advantage": (rewards[member] - mean) / spread}
            )
    for row, logprobs in zip(rows, _logprobs(model, rows), strict=True):
        row["logprobs"] = [x + chance.gauss(0.0, drift) for x in logprobs]
    return pa.Table.from_pylist(rows, schema=SCORED)


def _logprobs(model: str, rows: list[dict[str, Any]]) -> list[list[float]]:
    import torch
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    logprobs = []
    with torch.no_grad():
        for row in rows:
            prompt, completion = row["prompt_ids"], row["completion_ids"]
            logits = policy(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            chosen = torch.log_softmax(logits / TEMPERATURE, -1).gather(
                1, torch.tensor(completion).unsqueeze(1)
            )
            logprobs.append(chosen.squeeze(1).tolist())
    return logprobs


def _row(
    group: str, recognizer: bool, member: int, prompt: list[int], completion: list[int]
) -> dict[str, Any]:
    return {
        "group_id": group,
        "role": "Recognizer" if recognizer else "Responder",
        "generation": 1,
        "source": "demo",
        "dialogue_id": group,
        "utterance": 0,
        "turn": 0,
        "member": member,
        "context": [],
        "speaker": "Ann",
        "target": "Well." if recognizer else None,
        "intended": None if recognizer else ["joy"],
        "gold": None,
        "prompt_ids": prompt,
        "completion_ids": completion,
        "logprobs": [],
        "views": [],
        "confidence": 1.0,
        "completion": "…",
        "labels": ["joy"] if recognizer else None,
        "well_formed": True,
        "finished": True,
        "chosen": False,
        "consensus": ["joy"],
        "alignment": 1.0,
        "agreement": 1.0,
        "format": 1.0,
        "penalty": 0.0,
        "reward": 0.0,
        "consistency": 1.0,
        "advantage": 0.0,
    }


def put_kept(config: StageConfig, table: pa.Table) -> StageConfig:
    """Write the rows as the result of a flywheel, and return the configuration that reads it."""
    store = open_store(config.spec.storage)
    folder = config.output.rsplit("/", 1)[0] + "/flywheel"
    data = encode_table(table)
    store.put(join(folder, "part-00000.parquet"), data)
    part = Part(path="part-00000.parquet", sha256=sha256(data), size=len(data), rows=table.num_rows)
    manifest = Manifest(
        run=config.run,
        stage=Stage.FLYWHEEL,
        generation=config.generation,
        seed=1,
        config_sha256="0" * 64,
        config={},
        parts=[part],
        rows=table.num_rows,
    )
    uri = join(folder, "manifest.json")
    store.put(uri, manifest.encode())
    return config.model_copy(update={"parents": {Stage.FLYWHEEL.slug: uri}})
