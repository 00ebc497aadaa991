"""Flywheel rows a second and peak memory at 0.1, 1 and 10 million candidates.

``python benchmarks/flywheel.py [--sizes 100000 1000000 10000000]`` writes scored candidates to a
temporary folder and runs the real stage on each size in a process of its own. It prints one JSON
line for each figure: rows a second (at least half as many at ten times the size) and peak memory
(at most 4 GiB).

- ``--runner Ray`` runs the data frames on a local Ray cluster with two worker processes. The memory
  is then that of all its processes, each shared page once.
- ``--label-sets 0.2`` gives this share of the groups two emotions, for which `keep` and the balance
  cap visit group by group.
- ``--replay 0.2`` adds groups of an earlier flywheel of the same size, up to this share.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from contextlib import suppress
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


def make_part(first: int, groups: int, words: pa.Array, label_sets: float = 0.0) -> pa.Table:
    """Return the scored candidates of consecutive groups; a share has two emotions."""
    rng = np.random.default_rng(first)
    rows = groups * GROUP
    each = pa.array(np.repeat(np.arange(groups), GROUP))
    responder = rng.random(groups) < 0.5
    row_responder = np.repeat(responder, GROUP)
    role = np.where(row_responder, Role.RESPONDER.value, Role.RECOGNIZER.value)
    tokens = pa.array(np.arange(32_000, dtype=np.int32))
    emotions = pa.array(dataset_labels.MELD)
    codes = rng.choice(len(SHARES), groups, p=SHARES)
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
    has_two = np.random.default_rng([first, 1]).random(groups) < label_sets
    both = np.stack([codes, (codes + 1) % len(SHARES)], axis=1)
    chosen = np.stack([np.ones(groups, bool), has_two], axis=1)
    ends = np.concatenate(([0], np.cumsum(1 + has_two))).astype(np.int32)
    label = emotions.take(pa.array(both[chosen]))
    consensus = pa.ListArray.from_arrays(pa.array(ends), label)
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


def make_result(
    folder: Path, stage: Stage, candidates: int, *, first_group: int = 0, label_sets: float = 0.0
) -> None:
    """Write the parts and the manifest of a stage whose rows are scored."""
    folder.mkdir(parents=True)
    words = pa.array([f"w{i}" for i in range(5_000)])
    parts = []
    total = candidates // GROUP
    for index, first in enumerate(range(0, total, PART_GROUPS)):
        path = folder / f"part-{index:05d}.parquet"
        groups = min(PART_GROUPS, total - first)
        table = make_part(first_group + first, groups, words, label_sets)
        pq.write_table(table, path, compression="zstd")
        data = path.read_bytes()
        parts.append(Part(path=path.name, sha256=sha256(data), size=len(data), rows=table.num_rows))
    manifest = Manifest(
        run=RUN,
        stage=stage,
        generation=1,
        seed=0,
        config_sha256="0" * 64,
        config={},
        parts=parts,
        rows=sum(part.rows or 0 for part in parts),
    )
    (folder / MANIFEST).write_bytes(manifest.encode())


def make_config(folder: Path, runner: str, replay: float) -> StageConfig:
    """Return the configuration of generation 2's Flywheel over a folder as storage."""
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
            "flywheel": {"runner": runner, "replay": replay},
        }
    )
    root = f"file://{folder}/{RUN}"
    return StageConfig(
        stage=Stage.FLYWHEEL,
        run=RUN,
        generation=2,
        seed=stage_seed(0, 2, Stage.FLYWHEEL),
        spec=spec,
        policy_uri=spec.model.uri,
        judge_uri=spec.model.uri,
        output=f"{root}/{stage_prefix(2, Stage.FLYWHEEL)}",
        parents={Stage.SCORE.slug: f"{root}/{stage_prefix(2, Stage.SCORE)}/{MANIFEST}"},
        replay=[f"{root}/{stage_prefix(1, Stage.FLYWHEEL)}/{MANIFEST}"] if replay else [],
    )


def memory_of_tree(root: int) -> int:
    """Return the bytes of a process and all below it, with each shared page once."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    tree, added = {root}, {root}
    while added:
        added = {pid for pid, parent in parents.items() if parent in added} - tree
        tree |= added
    total = 0
    for pid in tree:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += 1024 * int(next(x for x in lines if x.startswith("Pss:")).split()[1])
    return total


def own_memory(pid: int) -> int:
    """Return the memory of a process in bytes; 0 if it has ended.

    Pages of files do not count: the system may drop them, and how many it maps depends on it.
    """
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        own = (line for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
        return sum(1024 * int(line.split()[1]) for line in own)
    return 0


def run_stage(folder: Path, runner: str, replay: float) -> tuple[float, float, Manifest]:
    """Run the stage in a process of its own; return seconds, peak GiB and the manifest."""
    config = make_config(folder, runner, replay)
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
    peaks = [0]
    ended = threading.Event()

    def sample() -> None:
        read, pause = (memory_of_tree, 1.0) if runner == "Ray" else (own_memory, 0.1)
        while not ended.wait(pause):
            peaks.append(read(child))

    threading.Thread(target=sample).start()
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - began
    ended.set()
    os.close(log)
    peak = max(peaks) / 2**30
    if status:
        raise SystemExit((folder / "log").read_text()[-4000:])
    manifest = (folder / RUN / stage_prefix(2, Stage.FLYWHEEL) / MANIFEST).read_bytes()
    return seconds, peak, Manifest.model_validate_json(manifest)


def measure(
    candidates: int, scratch: str | None, runner: str, replay: float, label_sets: float
) -> tuple[float, float]:
    """Return rows a second and peak GiB at one size."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        root = folder / RUN
        scored = root / stage_prefix(2, Stage.SCORE)
        make_result(scored, Stage.SCORE, candidates, label_sets=label_sets)
        if replay:
            earlier = root / stage_prefix(1, Stage.FLYWHEEL)
            make_result(earlier, Stage.FLYWHEEL, candidates, first_group=candidates)
        seconds, memory, manifest = run_stage(folder, runner, replay)
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
    parser.add_argument("--runner", choices=["InProcess", "Ray"], default="InProcess")
    parser.add_argument("--label-sets", type=float, default=0.0, help="the share with two emotions")
    parser.add_argument("--replay", type=float, default=0.0, help="the share, from 0 to 1")
    arguments = parser.parse_args()
    ways = {
        "-ray": arguments.runner == "Ray",
        "-label-sets": arguments.label_sets > 0.0,
        "-replay": arguments.replay > 0.0,
    }
    way = "".join(name for name, is_on in ways.items() if is_on)
    before = None
    for size in arguments.sizes:
        speed, memory = measure(
            size, arguments.scratch, arguments.runner, arguments.replay, arguments.label_sets
        )
        goal = LINEAR * before if before else None
        name = f"{size}{way}"
        print_figure(
            f"flywheel-rows-per-second-{name}", speed, "rows/s", goal, not goal or speed >= goal
        )
        print_figure(
            f"flywheel-peak-memory-{name}", memory, "GiB", MEMORY_GIB, memory <= MEMORY_GIB
        )
        before = speed


if __name__ == "__main__":
    main()
