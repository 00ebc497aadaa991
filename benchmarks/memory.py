"""How the memory of a stage grows with its data.

``PYTHONPATH=. python benchmarks/memory.py [--dialogues 20000 50000 100000] [--rows 131072 262144
524288]`` runs each piece of work at each size in a process of its own, once as the stages do it and
once with everything in memory. It prints one JSON line for each piece of work: by how many MiB the
process's own memory grows for a million dialogues or rows, the same with everything in memory, and
the peak and the seconds at each size. Pages of files do not count, because the system may drop
them.

- ``self-play``: one of eight shards reads the sources, plans the episodes, and makes its own.
- ``check``: the sources are read, and compared with each other.
- ``score``: the rows of self-play get their rewards, part by part. The readings are random: the
  judge is not run.
- ``train-rows``: the stage checks the rows of the flywheel, sorts them and writes them, with the
  turns and the best responses to imitate.
- ``train-worker``: a training process opens the rows, adds the answers, turns and responses to
  imitate, plans three epochs, and reads each row once.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import RewardSpec, SelfPlaySpec, Use
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.inspection import InspectedSource, inspect_dialogues
from selfemo_jobs.datasets.load import read_source
from selfemo_jobs.datasets.reading import ReadOptions
from selfemo_jobs.datasets.stored_source import store_content
from selfemo_jobs.rewards.label_sets import mask_dtype
from selfemo_jobs.runtime.schemas import CANDIDATES, SCORED
from selfemo_jobs.runtime.tables import decode_table, encode_table
from selfemo_jobs.stages.score.candidate_groups import find_groups
from selfemo_jobs.stages.score.score_summary import merge_summaries
from selfemo_jobs.stages.score.scoring import JudgePredictions, score_candidates
from selfemo_jobs.stages.selfplay.episodes import (
    SourceDialogues,
    parts_of_shard,
    plan_episodes,
    split_into_parts,
)
from selfemo_jobs.stages.train.batches import BatchShape, plan_steps
from selfemo_jobs.stages.train.best_responses import BestResponses, read_best_responses
from selfemo_jobs.stages.train.ragged_rows import FlaggedRows
from selfemo_jobs.stages.train.rollout_data import (
    RolloutData,
    add_imitation_rows,
    add_response_rows,
    training_columns,
)
from selfemo_jobs.stages.train.rollout_files import (
    read_consensus,
    read_responses,
    read_rollouts,
    write_responses,
    write_rollouts,
)
from selfemo_jobs.stages.train.spoken_turns import SpokenTurns, read_spoken_turns

DIALOGUES = (20_000, 50_000, 100_000)
ROWS = (131_072, 262_144, 524_288)
#: Turns of a dialogue, and words of a turn.
TURNS, WORDS = 10, 12
SHARDS = 8
EPOCHS = 3
#: Readings of the judge.
SAMPLES = 4
#: The most MiB for a million dialogues, or rows.
GOALS = {
    **{"self-play": 250.0, "check": 600.0, "score": 100.0},
    **{"train-rows": 400.0, "train-worker": 400.0},
}
_SOURCE, _PARTS, _ROWS = "source.jsonl", "parts", "rows"


def write_source(folder: Path, dialogues: int) -> None:
    """Write a source in JSON Lines."""
    chance = random.Random(0)
    words = [f"word{number}" for number in range(5000)]
    with (folder / _SOURCE).open("w") as stream:
        for number in range(dialogues):
            turns = [
                {"speaker": "AB"[turn % 2], "text": " ".join(chance.choices(words, k=WORDS))}
                | ({"labels": [chance.choice(MELD)]} if turn % 3 == 0 else {})
                for turn in range(TURNS)
            ]
            stream.write(json.dumps({"id": f"d{number}", "turns": turns}) + "\n")


def write_parts(folder: Path, rows: int) -> None:
    """Write the parts of a flywheel."""
    from benchmarks.flywheel import GROUP, PART_GROUPS, make_part

    (folder / _PARTS).mkdir()
    words = pa.array([f"word{number}" for number in range(5000)])
    for first in range(0, rows // GROUP, PART_GROUPS):
        groups = min(PART_GROUPS, rows // GROUP - first)
        pq.write_table(make_part(first, groups, words), folder / _PARTS / f"{first:09d}.parquet")


def dialogues_of(folder: Path, *, whole: bool) -> Sequence[Dialogue]:
    """Return the dialogues of the source: in a list, or in a scratch file."""
    files = fetch_source((folder / _SOURCE).as_uri(), None, folder)
    options = ReadOptions(MELD)
    if whole:
        return read_source(files, None, options).dialogues
    return store_content(files, None, options, folder).dialogues


def self_play(folder: Path, *, whole: bool) -> None:
    settings = SelfPlaySpec(dialogues=None, targets_per_dialogue=1)
    source = SourceDialogues("source", dialogues_of(folder, whole=whole), use_labels=True)
    assert not source.has_label_sets
    plan = plan_episodes([source], settings, MELD, seed=0)
    parts = split_into_parts(plan, settings)
    made = [list(part) for part in parts] if whole else parts
    for number in parts_of_shard(len(parts), 0, SHARDS):
        assert all(episode.target.text for episode in made[number])


def check(folder: Path, *, whole: bool) -> None:
    dialogues = dialogues_of(folder, whole=whole)
    inspect_dialogues(
        [InspectedSource(f"dataset.sources[{i}]", f"{i}", dialogues, Use.LABELED) for i in (0, 1)],
        MELD,
    )


def _tables(folder: Path) -> Iterator[pa.Table]:
    for file in sorted((folder / _PARTS).iterdir()):
        table = pq.read_table(file).cast(SCORED)
        target, no_penalty = pa.array(["word " * WORDS] * len(table)), [0.0] * len(table)
        columns = {"target": target, "penalty": pa.array(no_penalty, pa.float32())}
        for name, values in columns.items():
            field = table.schema.field(name)
            table = table.set_column(table.schema.get_field_index(name), field, values)
        yield table


def score(folder: Path, *, whole: bool) -> None:
    from benchmarks.flywheel import GROUP

    chance, summaries, tables = np.random.default_rng(0), [], []
    for number, file in enumerate(sorted((folder / _PARTS).iterdir())):
        table = _candidates(decode_table(file.read_bytes(), file.name, SCORED))
        groups = find_groups(table, GROUP, file.name)
        shapes = (len(groups.recognizer), SAMPLES), (len(groups.responder), GROUP, SAMPLES)
        drawn = [1 << chance.integers(0, len(MELD), shape) for shape in shapes]
        readings = JudgePredictions(*(masks.astype(mask_dtype(len(MELD))) for masks in drawn))
        scored = score_candidates(
            table, readings, labels=MELD, reward=RewardSpec(), group_size=GROUP, seed=number
        )
        encode_table(scored.table)
        summaries.append(scored.summary)
        if whole:
            tables.append(scored.table)
    assert merge_summaries(summaries).recognizer.rows


def _candidates(scored: pa.Table) -> pa.Table:
    """Return scored rows as those of self-play."""
    table = scored.select(CANDIDATES.names)
    roles = table["role"].to_pylist()
    chance = random.Random(0)
    columns = {
        "labels": [[chance.choice(MELD)] if role == "Recognizer" else None for role in roles],
        "intended": [None if role == "Recognizer" else [MELD[0]] for role in roles],
    }
    for name, values in columns.items():
        index, kind = table.schema.get_field_index(name), CANDIDATES.field(name)
        table = table.set_column(index, kind, pa.array(values, kind.type))
    return table


def train_rows(folder: Path, *, whole: bool) -> None:
    if whole:
        table = training_columns(_tables(folder))
        RolloutData.from_table(table)
        pq.write_table(table, folder / "rows.parquet")
    else:
        imitated = BestResponses(folder / "scratch"), SpokenTurns(folder / "scratch")
        tables = _tables(folder)
        for collector in imitated:
            tables = collector.collected(tables)
        write_rollouts(tables, folder / _ROWS, None)
        for collector in imitated:
            collector.write(folder / _ROWS)


def train_worker(folder: Path, *, whole: bool) -> None:
    if whole:
        table = pq.read_table(folder / "rows.parquet")
        rows = RolloutData.from_table(table)
        firsts = pa.array([group[0] for group in rows.groups])
        consensus = iter(table["consensus"].take(firsts).to_pylist())
    else:
        rows, consensus = read_rollouts(folder / _ROWS), read_consensus(folder / _ROWS)
    rows = add_imitation_rows(rows, consensus, lambda labels: [7] * (len(labels) + 1))
    if not whole:
        turns = read_spoken_turns(folder / _ROWS)
        said = (([7] * (len(turn.context) * 15), [8] * len(turn.text.split())) for turn in turns)
        write_responses(chain(said, read_best_responses(folder / _ROWS)), folder / _ROWS)
        rows = add_response_rows(rows, *read_responses(folder / _ROWS))
        assert rows.responses
    steps = plan_steps(
        rows.groups,
        rows.prompts.lengths,
        rows.completions.lengths,
        BatchShape(64, 32, 1),
        epochs=EPOCHS,
        seed=0,
        imitated=FlaggedRows(rows.imitated),
        responses=rows.responses,
    )
    for number in range(len(steps) // EPOCHS):
        step = steps[number]
        for batch in step.micro_batches[0]:
            for row in (row for row in batch if row >= 0):
                assert len(rows.prompts[row]) and rows.logprobs[row].sum() <= 0.0


@dataclass(frozen=True)
class Work:
    """A piece of work."""

    run: Callable[..., None]
    sizes: str
    """The option with its sizes."""


WORK = {
    "self-play": Work(self_play, "dialogues"),
    "check": Work(check, "dialogues"),
    "score": Work(score, "rows"),
    "train-rows": Work(train_rows, "rows"),
    "train-worker": Work(train_worker, "rows"),
}


def own_memory() -> float:
    """Return the memory of this process in MiB, without the pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def peak_growth(run: Callable[[], None]) -> float:
    """Return by how many MiB the memory of this process grows at most while something runs."""
    before = peak = own_memory()
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            peak = max(peak, own_memory())

    sampler = threading.Thread(target=sample)
    sampler.start()
    run()
    ended.set()
    sampler.join()
    return max(peak, own_memory()) - before


def measure(name: str, folder: Path, *, whole: bool) -> tuple[float, float]:
    """Return the peak growth in MiB of a piece of work in a process of its own, and its seconds."""
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
    output = subprocess.run(
        [*command, *(["--whole"] if whole else [])], check=True, capture_output=True, text=True
    )
    megabytes, seconds = map(float, output.stdout.split()[-2:])
    return megabytes, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", nargs="+", type=int, default=DIALOGUES)
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--skip-whole", action="store_true", help="not with all in memory")
    parser.add_argument("--scratch", help="folder for the synthetic data")
    for name in ("child", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run = partial(WORK[arguments.child].run, Path(arguments.folder), whole=arguments.whole)
        began = time.process_time()
        peak = peak_growth(run)
        print(peak, time.process_time() - began)
        return
    peaks: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    ways = [False] if arguments.skip_whole else [False, True]
    writers = {"dialogues": write_source, "rows": write_parts}
    for kind, write in writers.items():
        works = [work for work in arguments.only if WORK[work].sizes == kind]
        for size in getattr(arguments, kind) if works else ():
            with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
                write(Path(name), size)
                for work in works:
                    for whole in ways:
                        peak = measure(work, Path(name), whole=whole)
                        peaks.setdefault((work, whole), []).append(peak)
                        print(work, size, "whole" if whole else "", f"{peak[0]:.0f} MiB",
                              f"{peak[1]:.1f} s", file=sys.stderr)  # fmt: skip
    for work in arguments.only:
        print_figure(work, getattr(arguments, WORK[work].sizes), peaks)


def print_figure(
    work: str, sizes: Sequence[int], peaks: dict[tuple[str, bool], list[tuple[float, float]]]
) -> None:
    def growth(whole: bool) -> int:
        (first, _), *_, (last, _) = peaks[work, whole]
        return round((last - first) / (sizes[-1] - sizes[0]) * 1e6)

    line = {
        "name": f"memory-{work}",
        "value": growth(False),
        "unit": f"MiB for a million {WORK[work].sizes}",
        "goal": GOALS[work],
        "holds": growth(False) <= GOALS[work],
        "sizes": list(sizes),
        "peaks": [round(peak) for peak, _ in peaks[work, False]],
        "cpuSeconds": [round(seconds, 1) for _, seconds in peaks[work, False]],
        **({"all-in-memory": growth(True)} if (work, True) in peaks else {}),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
