"""What a study has come to: from the rows' results and answers to one table and one summary.

Pure but for :func:`collect`. A row that did not run is said to be missing; nothing stands in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from selfemo_api.stages import STAGE_ORDER
from selfemo_study.collapse_history import signs_of
from selfemo_study.paths import Places, asked_for
from selfemo_study.row_record import DEV, TEST, Generation, RowResult, read_counts
from selfemo_study.selection import foretelling, rise
from selfemo_study.statistics import (
    Confusion,
    Interval,
    difference,
    mean_f1,
    promotions,
    relative_gain,
)
from selfemo_study.study_config import Kind, Row, Study

STAGES = tuple(stage.value for stage in STAGE_ORDER)

#: One row for each row, seed, generation and split.
TABLE = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("row", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        # null: this generation was not measured on this split
        pa.field("f1", pa.float64()),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("best", pa.bool_(), nullable=False),
        *(pa.field(f"seconds_{stage.lower()}", pa.float64()) for stage in STAGES),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("examples", pa.int64()),
        pa.field("kept_groups", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Done:
    """One finished row and seed."""

    result: RowResult
    confusions: Mapping[tuple[int, str], Confusion]
    """By generation and split."""


@dataclass(frozen=True)
class Missing:
    """A row's seed that is asked for and not there."""

    row: str
    seed: int
    why: str


@dataclass(frozen=True)
class Collected:
    """All that was found of a study."""

    study: Study
    done: Mapping[str, Mapping[int, Done]]
    """By row and seed."""
    missing: Sequence[Missing] = ()

    def of(self, row: Row) -> Mapping[int, Done]:
        """Return a row's finished seeds."""
        return self.done.get(row.name, {})


def collect(study: Study, places: Places) -> Collected:
    """Return what has been run of a study. Raises StudyError."""
    done: dict[str, dict[int, Done]] = {}
    missing = []
    for row in study.rows:
        for seed in study.seeds_of(row):
            folder = places.row(row, seed)
            result = folder.read()
            if result is None:
                begun = " (begun)" if folder.asked.is_file() else ""
                missing.append(Missing(row.name, seed, f"not finished{begun}"))
            elif result.asked != asked_for(study, row, seed):
                missing.append(Missing(row.name, seed, "run with other settings than the file's"))
            elif _stale(study, places, row, result):
                missing.append(Missing(row.name, seed, "its model row was run anew since"))
            else:
                counts = read_counts(folder.counts, len(study.spec["dataset"]["labels"]))
                done.setdefault(row.name, {})[seed] = Done(result, counts)
    return Collected(study, done, missing)


def _stale(study: Study, places: Places, row: Row, result: RowResult) -> bool:
    """Return whether a control took its steps from a run that is no longer there."""
    if row.kind not in (Kind.SUPERVISED, Kind.MAJORITY) or row.steps is not None:
        return False
    model = places.row(study.row(study.model_of(row)), result.seed).read()
    return model is None or model.steps != result.steps


def table_of(collected: Collected) -> pa.Table:
    """Return everything as one table."""
    rows = []
    for row in collected.study.rows:
        for seed, done in sorted(collected.of(row).items()):
            for generation in done.result.generations:
                for split, f1 in ((DEV, generation.dev), (TEST, generation.test)):
                    rows.append(
                        {
                            "name": collected.study.name,
                            "row": row.name,
                            "kind": row.kind.value,
                            "seed": seed,
                            "generation": generation.generation,
                            "split": split,
                            "f1": f1,
                            "outcome": generation.outcome,
                            "best": generation.generation == done.result.best,
                            **_seconds(generation),
                            "steps": generation.steps,
                            "examples": generation.examples,
                            "kept_groups": generation.kept_groups,
                        }
                    )
    return pa.Table.from_pylist(rows, schema=TABLE)


def _seconds(generation: Generation) -> dict[str, float | None]:
    return {f"seconds_{stage.lower()}": generation.seconds.get(stage) for stage in STAGES}


def summary_of(collected: Collected, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study's answer as JSON.

    Parameters
    ----------
    machine
        Its cores and the libraries' versions.
    """
    study = collected.study
    rows = {row.name: _row(collected, row) for row in study.rows}
    gain = rows[study.headline]["relativeGain"] if study.headline in rows else None
    vote = _first_of(study, rows, Kind.MAJORITY)
    supervised = _first_of(study, rows, Kind.SUPERVISED)
    steps = [step for row in rows.values() for step in row["promotions"]]
    return {
        "name": study.name,
        "title": study.title,
        "complete": not collected.missing,
        "missing": [asdict(found) for found in collected.missing],
        "headline": study.headline,
        **_gain("relative_gain", gain),
        **_gain("majority_vote_relative_gain", vote),
        **_gain("supervised_relative_gain", supervised),
        "gate": found.to_json() if (found := foretelling(steps)) else None,
        "promoted_and_worse": [
            f"{name}, seed {step['seed']}: generation {step['after']} after {step['before']}"
            for name, row in rows.items()
            for step in row["promotions"]
            if step["worse"]
        ],
        "machine": dict(machine),
        "rows": list(rows.values()),
    }


def _first_of(study: Study, rows: Mapping[str, Any], kind: Kind) -> Mapping[str, float] | None:
    """Return the gain of the first row of a kind, or None where there is none."""
    return next((rows[r.name]["relativeGain"] for r in study.rows if r.kind is kind), None)


def _gain(name: str, gain: Mapping[str, float] | None) -> dict[str, Any]:
    return {
        name: gain["value"] if gain else None,
        f"{name}_interval": [gain["low"], gain["high"]] if gain else None,
    }


def _row(collected: Collected, row: Row) -> dict[str, Any]:
    """Return one row's figures."""
    study, done = collected.study, collected.of(row)
    results = [d.result for d in done.values()]
    found: dict[str, Any] = {
        "name": row.name,
        "kind": row.kind.value,
        "why": row.why,
        "set": row.set,
        "seeds": sorted(done),
        "missing": [seed for seed in study.seeds_of(row) if seed not in done],
        "dev": _mean(best_on(done, DEV)),
        "test": _mean(best_on(done, TEST)),
        "generationZeroTest": _mean(zero_on(done, TEST)),
        "relativeGain": None,
        "difference": _versus(collected, row),
        "promotions": _promotions(study, done),
        "signs": _signs(done) if row.kind is Kind.EVOLUTION else [],
        "bySeed": [_seed(result) for result in results],
        "secondsByStage": seconds_by_stage(results),
    }
    pairs = gain_pairs(done)
    if pairs and all(before.trace(axis1=1, axis2=2).any() for before, _ in pairs):
        found["relativeGain"] = relative_gain(pairs).to_json()
    return found


def best_on(done: Mapping[int, Done], split: str) -> list[Confusion]:
    """Return each seed's answers of its best generation."""
    return [d.confusions[d.result.best, split] for _, d in sorted(done.items())]


def zero_on(done: Mapping[int, Done], split: str) -> list[Confusion]:
    """Return each seed's answers of generation 0, where the row has one."""
    found = (d.confusions.get((0, split)) for _, d in sorted(done.items()))
    return [c for c in found if c is not None]


def gain_pairs(done: Mapping[int, Done]) -> list[tuple[Confusion, Confusion]]:
    """Return generation 0 and the best on test, for each seed; empty without a generation 0."""
    before, after = zero_on(done, TEST), best_on(done, TEST)
    return list(zip(before, after, strict=True)) if before else []


def _versus(collected: Collected, row: Row) -> dict[str, float] | None:
    """Return the row's best less the headline row's, paired by seed.

    An evolution is compared with the headline row as it stood after as many generations.
    """
    if row.name == collected.study.headline:
        return None
    mine, headline = collected.of(row), collected.done.get(collected.study.headline, {})
    pairs = []
    for seed in sorted(set(mine) & set(headline)):
        one, other = mine[seed], headline[seed]
        last = one.result.generations[-1].generation if row.kind is Kind.EVOLUTION else None
        best = other.result.best_after(last)
        pairs.append((other.confusions[best, TEST], one.confusions[one.result.best, TEST]))
    return difference(pairs).to_json() if pairs else None


def _promotions(study: Study, done: Mapping[int, Done]) -> list[dict[str, Any]]:
    labels = study.spec["dataset"]["labels"]
    shares = study.spec.get("flywheel", {}).get("labelPrior")
    found = []
    for seed, one in sorted(done.items()):
        kept = {
            g: one.confusions[g, TEST] for g in one.result.promoted if (g, TEST) in one.confusions
        }
        for step in promotions(kept):
            dev = [one.confusions[g, DEV] for g in (step.before, step.after)]
            found.append(
                {
                    "seed": seed,
                    "before": step.before,
                    "after": step.after,
                    "dev": round(rise(dev[0], dev[1], labels), 6),
                    "devWeighed": round(rise(dev[0], dev[1], labels, shares), 6)
                    if shares
                    else None,
                    "change": step.change.to_json(),
                    "worse": step.worse,
                }
            )
    return found


def _signs(done: Mapping[int, Done]) -> list[dict[str, float]]:
    return [
        {
            "seed": seed,
            "generation": generation,
            "entropy": round(found.entropy, 4),
            "divergence": round(found.divergence, 4),
        }
        for seed, one in sorted(done.items())
        for generation, found in signs_of(one.confusions).items()
    ]


def _seed(result: RowResult) -> dict[str, Any]:
    return {
        "seed": result.seed,
        "phase": result.phase,
        "message": result.message,
        "best": result.best,
        "generations": [g.to_json() for g in result.generations],
        "curve": [p.to_json() for p in result.curve],
    }


def seconds_by_stage(results: Iterable[RowResult]) -> dict[str, float]:
    """Return the mean over runs of the seconds spent in each stage, over all generations."""
    runs = list(results)
    total = dict.fromkeys(STAGES, 0.0)
    for result in runs:
        for generation in result.generations:
            for stage, seconds in generation.seconds.items():
                total[stage] = total.get(stage, 0.0) + seconds
    return {stage: round(s / len(runs), 1) for stage, s in total.items() if s} if runs else {}


def _mean(by_seed: Sequence[Confusion]) -> dict[str, float] | None:
    return mean_f1(by_seed).to_json() if by_seed else None


def by_generation(done: Mapping[int, Done], split: str) -> dict[int, Interval]:
    """Return the mean F1 over seeds of each generation that any seed has measured."""
    generations = sorted({g for d in done.values() for g, s in d.confusions if s == split})
    return {
        g: mean_f1([d.confusions[g, split] for d in done.values() if (g, split) in d.confusions])
        for g in generations
    }
