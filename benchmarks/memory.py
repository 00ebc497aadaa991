"""How the memory of a stage grows with its data.

``PYTHONPATH=. python benchmarks/memory.py [--dialogues 20000 100000] [--rows 131072 524288]`` runs
each piece of work at each size in a process of its own, once as the stages do it and once with
everything in memory. It prints one JSON line for each piece of work: by how many MiB the process's
own memory grows for a million dialogues or rows, and the same with everything in memory. Pages of
files do not count, because the system may drop them.

- ``self-play``: one of eight shards reads the sources, plans the episodes, and makes its own.
- ``check``: the sources are read, and compared with each other.
- ``train-rows``: the stage checks the rows of the flywheel, sorts them and writes them.
- ``train-worker``: a training process opens the rows, plans its steps, and reads each row once.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import SelfPlaySpec, Use
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.inspection import InspectedSource, inspect_dialogues
from selfemo_jobs.datasets.load import read_source
from selfemo_jobs.datasets.reading import ReadOptions
from selfemo_jobs.datasets.stored_source import store_content
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.stages.selfplay.episodes import (
    SourceDialogues,
    parts_of_shard,
    plan_episodes,
    split_into_parts,
)
from selfemo_jobs.stages.train.batches import BatchShape, plan_steps
from selfemo_jobs.stages.train.rollout_data import RolloutData, training_columns
from selfemo_jobs.stages.train.rollout_files import read_rollouts, write_rollouts

DIALOGUES = (20_000, 100_000)
ROWS = (131_072, 524_288)
#: Turns of a dialogue, and words of a turn.
TURNS, WORDS = 10, 12
SHARDS = 8
#: The most MiB for a million dialogues, or rows.
GOALS = {"self-play": 250.0, "check": 600.0, "train-rows": 400.0, "train-worker": 400.0}
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
        yield pq.read_table(file).cast(SCORED)


def train_rows(folder: Path, *, whole: bool) -> None:
    if whole:
        table = training_columns(_tables(folder))
        RolloutData.from_table(table)
        pq.write_table(table, folder / "rows.parquet")
    else:
        write_rollouts(_tables(folder), folder / _ROWS, None)


def train_worker(folder: Path, *, whole: bool) -> None:
    if whole:
        rows = RolloutData.from_table(pq.read_table(folder / "rows.parquet"))
    else:
        rows = read_rollouts(folder / _ROWS)
    shape = BatchShape(64, 8, 1)
    steps = plan_steps(
        rows.groups, rows.prompts.lengths, rows.completions.lengths, shape, epochs=1, seed=0
    )
    for step in steps:
        for batch in step.micro_batches[0]:
            for row in batch:
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


def measure(name: str, folder: Path, *, whole: bool) -> float:
    """Return the peak growth in MiB of a piece of work in a process of its own."""
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
    output = subprocess.run(
        [*command, *(["--whole"] if whole else [])], check=True, capture_output=True, text=True
    )
    return float(output.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", nargs=2, type=int, default=DIALOGUES)
    parser.add_argument("--rows", nargs=2, type=int, default=ROWS)
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--skip-whole", action="store_true", help="not with all in memory")
    for name in ("child", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run = partial(WORK[arguments.child].run, Path(arguments.folder), whole=arguments.whole)
        print(peak_growth(run))
        return
    peaks: dict[tuple[str, bool, int], float] = {}
    ways = [False] if arguments.skip_whole else [False, True]
    for index in (0, 1):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_source(folder, arguments.dialogues[index])
            write_parts(folder, arguments.rows[index])
            for work in arguments.only:
                for whole in ways:
                    peaks[work, whole, index] = measure(work, folder, whole=whole)
                    print(work, "whole" if whole else "", f"{peaks[work, whole, index]:.0f} MiB",
                          file=sys.stderr)  # fmt: skip
    for work in arguments.only:
        small, large = getattr(arguments, WORK[work].sizes)
        growth = [
            (peaks[work, whole, 1] - peaks[work, whole, 0]) / (large - small) * 1e6
            for whole in ways
        ]
        line = {
            "name": f"memory-{work}",
            "value": round(growth[0]),
            "unit": f"MiB for a million {WORK[work].sizes}",
            "goal": GOALS[work],
            "holds": growth[0] <= GOALS[work],
            **({} if arguments.skip_whole else {"all-in-memory": round(growth[1])}),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
