"""Flywheel rows a second and peak memory at 0.1, 1 and 10 million candidates.

``python benchmarks/flywheel.py [--sizes 100000 1000000 10000000]`` writes scored candidates to a
temporary folder and runs the real stage on each size in a process of its own. It prints one JSON
line for each figure: rows a second (at least half as many at ten times the size) and peak memory
(at most 4 GiB).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfemo_api import dataset_labels
from selfemo_api.contract import ENV_TERMINATION_LOG, ENV_WORK, StageConfig
from selfemo_api.metrics import FlywheelMetric
from selfemo_api.seeds import stage_seed
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, Part
from selfemo_jobs.runtime.schemas import SCORED, TURN
from selfemo_jobs.store.hashing import sha256

RUN = "default/bench-00000000"
SIZES = (100_000, 1_000_000, 10_000_000)
GROUP = 8
#: Groups of one part file: 65,536 rows.
PART_GROUPS = 8_192
#: Prompts of two or three turns with a short instruction.
PROMPT_TOKENS = (48, 96)
MEMORY_GIB = 4.0
#: The least ratio of rows a second at ten times the size.
LINEAR = 0.5
#: The number of sentences that a model repeats with another last word.
TEMPLATES = 3_000
#: MELD's label distribution after votes: neutral is more frequent, and above the default cap.
SHARES = (0.62, 0.08, 0.02, 0.05, 0.12, 0.02, 0.09)


def lists(rng: np.random.Generator, counts: np.ndarray, values: pa.Array) -> pa.ListArray:
    """Return lists of random values, of the given lengths."""
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    drawn = values.take(pa.array(rng.integers(0, len(values), offsets[-1])))
    return pa.ListArray.from_arrays(pa.array(offsets), drawn)


def sentences(rng: np.random.Generator, n: int, words: pa.Array) -> pa.Array:
    """Return random sentences; a third repeat one of a few thousand with another last word."""
    fresh = pc.binary_join(lists(rng, rng.integers(6, 15, n), words), " ")
    fixed = np.random.default_rng(0)  # the same templates in all parts
    templates = pc.binary_join(lists(fixed, fixed.integers(8, 15, TEMPLATES), words), " ")
    template = templates.take(pa.array(rng.integers(0, TEMPLATES, n)))
    text = pc.if_else(pa.array(rng.random(n) < 1 / 3), template, fresh)
    last = words.take(pa.array(rng.integers(0, len(words), n)))
    return pc.binary_join_element_wise(text, last, " ")


def make_part(first: int, groups: int, words: pa.Array) -> pa.Table:
    """Return the scored candidates of consecutive groups."""
    rng = np.random.default_rng(first)
    rows = groups * GROUP
    each = pa.array(np.repeat(np.arange(groups), GROUP))
    responder = rng.random(groups) < 0.5
    row_responder = np.repeat(responder, GROUP)
    role = np.where(row_responder, Role.RESPONDER.value, Role.RECOGNIZER.value)
    tokens = pa.array(np.arange(32_000, dtype=np.int32))
    emotions = pa.array(dataset_labels.MELD)
    label = emotions.take(pa.array(rng.choice(len(SHARES), groups, p=SHARES)))
    answers = emotions.take(pa.array(rng.integers(0, len(emotions), rows)))
    spoken = sentences(rng, rows, words)
    text = pc.if_else(pa.array(row_responder), spoken, answers)
    counts = np.where(row_responder, rng.integers(8, 25, rows), rng.integers(2, 6, rows))
    completions = lists(rng, counts, tokens)
    logprobs = pa.array(-rng.random(len(completions.flatten())).astype(np.float32))
    ids = pa.array(np.arange(first, first + groups)).cast(pa.string())
    group_id = pc.binary_join_element_wise(
        "g001", pc.utf8_lpad(ids, 12, padding="0"), pa.array(np.where(responder, "r", "u")), "-"
    )
    quality = rng.random(groups)
    reward = np.clip(np.repeat(quality, GROUP) + rng.normal(0, 0.2, rows), -1, 1)
    reward = reward.astype(np.float32).reshape(groups, GROUP)
    reward[rng.random(groups) < 0.2] = 0.5
    advantage = (reward - reward.mean(1, keepdims=True)) / (reward.std(1, keepdims=True) + 1e-4)
    turns = pa.StructArray.from_arrays(
        [
            words.take(pa.array(rng.integers(0, len(words), 2 * groups))),
            sentences(rng, 2 * groups, words),
        ],
        fields=list(TURN),
    )
    context = pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * groups + 1, 2, np.int32)), turns)
    consensus = pa.ListArray.from_arrays(pa.array(np.arange(groups + 1, dtype=np.int32)), label)
    no_labels = pa.nulls(rows, pa.list_(pa.string()))
    yes = pa.array(np.ones(rows, bool))
    half = pa.array(np.full(rows, 0.5, np.float32))
    columns = {
        "group_id": group_id.take(each),
        "role": pa.array(role),
        "generation": pa.array(np.ones(rows, np.int32)),
        "source": pa.array(["synthetic"]).take(pa.array(np.zeros(rows, np.int64))),
        "dialogue_id": ids.take(each),
        "utterance": pa.array(np.full(rows, 2, np.int32)),
        "turn": pa.array(np.zeros(rows, np.int32)),
        "member": pa.array(np.tile(np.arange(GROUP, dtype=np.int32), groups)),
        "context": context.take(each),
        "speaker": pa.array(["Ann"]).take(pa.array(np.zeros(rows, np.int64))),
        "target": pa.nulls(rows, pa.string()),
        "intended": no_labels,
        "gold": no_labels,
        "prompt_ids": lists(rng, rng.integers(*PROMPT_TOKENS, groups), tokens).take(each),
        "completion_ids": completions,
        "logprobs": pa.ListArray.from_arrays(completions.offsets, logprobs),
        "views": pa.array([[]] * rows, pa.list_(pa.list_(pa.int32()))),
        "completion": text,
        "labels": no_labels,
        "well_formed": yes,
        "finished": yes,
        "chosen": pa.array(np.tile(np.arange(GROUP) == 0, groups)),
        "consensus": consensus.take(each),
        "alignment": half,
        "agreement": half,
        "format": half,
        "penalty": half,
        "reward": pa.array(reward.ravel()),
        "confidence": pa.array(np.ones(groups * GROUP, np.float32)),
        "consistency": pa.array(np.repeat(rng.random(groups), GROUP).astype(np.float32)),
        "advantage": pa.array(advantage.ravel().astype(np.float32)),
    }
    return pa.table(columns).select(SCORED.names).cast(SCORED)


def make_score(folder: Path, candidates: int) -> None:
    """Write a Score stage's parts and manifest."""
    folder.mkdir(parents=True)
    words = pa.array([f"w{i}" for i in range(5_000)])
    parts = []
    total = candidates // GROUP
    for index, first in enumerate(range(0, total, PART_GROUPS)):
        path = folder / f"part-{index:05d}.parquet"
        table = make_part(first, min(PART_GROUPS, total - first), words)
        pq.write_table(table, path, compression="zstd")
        data = path.read_bytes()
        parts.append(Part(path=path.name, sha256=sha256(data), size=len(data), rows=table.num_rows))
    manifest = Manifest(
        run=RUN,
        stage=Stage.SCORE,
        generation=1,
        seed=0,
        config_sha256="0" * 64,
        config={},
        parts=parts,
        rows=sum(part.rows or 0 for part in parts),
    )
    (folder / MANIFEST).write_bytes(manifest.encode())


def make_config(folder: Path) -> StageConfig:
    """Return the Flywheel's configuration over a folder as storage."""
    source = {"uri": f"file://{folder}/none.jsonl", "format": "JSONL"}
    spec = EvolutionSpec.model_validate(
        {
            "model": {"uri": f"file://{folder}/model"},
            "dataset": {
                "labels": list(dataset_labels.MELD),
                "sources": [
                    {"name": "synthetic", "use": "SelfPlay", **source},
                    {"name": "dev", "use": "Evaluation", **source},
                ],
            },
            "storage": {"uri": f"file://{folder}"},
        }
    )
    root = f"file://{folder}/{RUN}"
    return StageConfig(
        stage=Stage.FLYWHEEL,
        run=RUN,
        generation=1,
        seed=stage_seed(0, 1, Stage.FLYWHEEL),
        spec=spec,
        policy_uri=spec.model.uri,
        judge_uri=spec.model.uri,
        output=f"{root}/{stage_prefix(1, Stage.FLYWHEEL)}",
        parents={Stage.SCORE.slug: f"{root}/{stage_prefix(1, Stage.SCORE)}/{MANIFEST}"},
    )


def run_stage(folder: Path) -> tuple[float, float, Manifest]:
    """Run the stage in a process of its own; return seconds, peak GiB and the manifest."""
    config = make_config(folder)
    path = folder / "config.json"
    path.write_text(config.model_dump_json(by_alias=True))
    environment = {
        **os.environ,
        ENV_WORK: str(folder / "work"),
        ENV_TERMINATION_LOG: str(folder / "result.json"),
    }
    command = [sys.executable, "-m", Stage.FLYWHEEL.module, "--config", str(path)]
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    began = time.monotonic()
    child = os.posix_spawn(
        sys.executable,
        command,
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
    )
    _, status, usage = os.wait4(child, 0)
    seconds = time.monotonic() - began
    os.close(log)
    if status:
        raise SystemExit((folder / "log").read_text()[-4000:])
    manifest = (folder / RUN / stage_prefix(1, Stage.FLYWHEEL) / MANIFEST).read_bytes()
    return seconds, usage.ru_maxrss / 2**20, Manifest.model_validate_json(manifest)


def measure(candidates: int, scratch: str | None) -> tuple[float, float]:
    """Return rows a second and peak GiB at one size."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        make_score(folder / RUN / stage_prefix(1, Stage.SCORE), candidates)
        seconds, memory, manifest = run_stage(folder)
    rows = manifest.metrics[FlywheelMetric.CANDIDATES]
    kept = {line["filter"]: line["after"] for line in manifest.report["funnel"]}
    sys.stderr.write(f"{rows:.0f} candidates: {seconds:.1f} s, groups left: {kept}\n")
    return rows / seconds, memory


def print_figure(name: str, value: float, unit: str, goal: float | None, holds: bool) -> None:
    line = {"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "holds": holds}
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="candidates")
    parser.add_argument("--scratch", help="folder for the synthetic tables (10 M need 8 GB)")
    arguments = parser.parse_args()
    before = None
    for size in arguments.sizes:
        speed, memory = measure(size, arguments.scratch)
        goal = LINEAR * before if before else None
        print_figure(
            f"flywheel-rows-per-second-{size}", speed, "rows/s", goal, not goal or speed >= goal
        )
        print_figure(
            f"flywheel-peak-memory-{size}", memory, "GiB", MEMORY_GIB, memory <= MEMORY_GIB
        )
        before = speed


if __name__ == "__main__":
    main()
