"""A study's figures as one table and one JSON summary. Pure.

A row that did not run is listed as missing; nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from selfemo_api.stages import Stage, stages_of
from selfemo_study.collapse_metrics import collapse_metrics_by_generation
from selfemo_study.finished_rows import (
    FinishedRow,
    StudyRows,
    baseline_and_best,
    confusions_of_baseline,
    confusions_of_best,
)
from selfemo_study.promotion_correlation import correlate_promotions, f1_change
from selfemo_study.row_result import DEV, TEST, Generation, RowResult
from selfemo_study.statistics import (
    Confusion,
    compare_promotions,
    difference,
    mean_f1,
    relative_gain,
)
from selfemo_study.study_config import Kind, Row, Study

#: The stages that take time. Publish takes seconds.
STAGES = tuple(stage.value for stage in stages_of(1) if stage is not Stage.PUBLISH)

#: One line for each row, seed, generation and split.
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


def generations_table(rows: StudyRows) -> pa.Table:
    """Return every generation of every finished row as one table, with the schema `TABLE`.

    Parameters
    ----------
    rows
        The study's rows.
    """
    lines = []
    for row in rows.study.rows:
        for seed, finished in sorted(rows.finished_seeds(row).items()):
            for generation in finished.result.generations:
                for split, f1 in ((DEV, generation.dev), (TEST, generation.test)):
                    lines.append(
                        {
                            "name": rows.study.name,
                            "row": row.name,
                            "kind": row.kind.value,
                            "seed": seed,
                            "generation": generation.generation,
                            "split": split,
                            "f1": f1,
                            "outcome": generation.outcome,
                            "best": generation.generation == finished.result.selected,
                            **_seconds(generation),
                            "steps": generation.steps,
                            "examples": generation.examples,
                            "kept_groups": generation.kept_groups,
                        }
                    )
    return pa.Table.from_pylist(lines, schema=TABLE)


def _seconds(generation: Generation) -> dict[str, float | None]:
    return {f"seconds_{stage.lower()}": generation.seconds.get(stage) for stage in STAGES}


def summarize(rows: StudyRows, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study's answer and the figures of each row as JSON.

    Parameters
    ----------
    rows
        The study's rows.
    machine
        The number of cores, and the versions of the libraries.
    """
    study = rows.study
    by_name = {row.name: _summarize_row(rows, row) for row in study.rows}
    gain = by_name[study.headline]["relativeGain"] if study.headline in by_name else None
    majority = _gain_of_first(study, by_name, Kind.MAJORITY)
    supervised = _gain_of_first(study, by_name, Kind.SUPERVISED)
    without = by_name[study.without_responder]["relativeGain"] if study.without_responder else None
    promotions = [promotion for row in by_name.values() for promotion in row["promotions"]]
    correlation = correlate_promotions(promotions)
    return {
        "name": study.name,
        "title": study.title,
        "complete": not rows.missing,
        "missing": [asdict(row) for row in rows.missing],
        "headline": study.headline,
        **_gain_fields("relative_gain", gain),
        **_gain_fields("majority_vote_relative_gain", majority),
        **_gain_fields("supervised_relative_gain", supervised),
        **_gain_fields("gain_over_supervised", _gain_over_supervised(rows)),
        **_gain_fields("without_responder_relative_gain", without),
        "gate": correlation.to_json() if correlation else None,
        "promoted_and_worse": [
            f"{name}, seed {promotion['seed']}: generation {promotion['after']} after "
            f"{promotion['before']}"
            for name, row in by_name.items()
            for promotion in row["promotions"]
            if promotion["worse"]
        ],
        "machine": dict(machine),
        "rows": list(by_name.values()),
    }


def _gain_of_first(
    study: Study, by_name: Mapping[str, Any], kind: Kind
) -> Mapping[str, float] | None:
    """Return the gain of the first row of a kind, or None where there is no such row."""
    return next((by_name[r.name]["relativeGain"] for r in study.rows if r.kind is kind), None)


def _gain_over_supervised(rows: StudyRows) -> dict[str, float] | None:
    """Return the gain of the headline row's best relative to the first supervised row's.

    It is paired by seed and dialogue. None where no seed of both is finished.
    """
    study = rows.study
    control = next((row.name for row in study.rows if row.kind is Kind.SUPERVISED), "")
    of_control = rows.finished.get(control, {})
    of_headline = rows.finished.get(study.headline, {})
    seeds = sorted(set(of_control) & set(of_headline))
    before, after = (
        confusions_of_best({seed: row[seed] for seed in seeds}, TEST)
        for row in (of_control, of_headline)
    )
    pairs = list(zip(before, after, strict=True))
    return relative_gain(pairs).to_json() if pairs else None


def _gain_fields(name: str, gain: Mapping[str, float] | None) -> dict[str, Any]:
    return {
        name: gain["value"] if gain else None,
        f"{name}_interval": [gain["low"], gain["high"]] if gain else None,
    }


def _summarize_row(rows: StudyRows, row: Row) -> dict[str, Any]:
    """Return the figures of one row."""
    study, finished = rows.study, rows.finished_seeds(row)
    results = [one.result for one in finished.values()]
    summary: dict[str, Any] = {
        "name": row.name,
        "kind": row.kind.value,
        "why": row.why,
        "set": row.set,
        "seeds": sorted(finished),
        "missing": [seed for seed in study.seeds_of(row) if seed not in finished],
        "dev": _mean(confusions_of_best(finished, DEV)),
        "test": _mean(confusions_of_best(finished, TEST)),
        "generationZeroTest": _mean(confusions_of_baseline(finished, TEST)),
        "relativeGain": None,
        "difference": _difference_from_headline(rows, row),
        "promotions": _promotions(study, finished),
        "signs": _collapse_metrics(finished) if row.kind is Kind.EVOLUTION else [],
        "bySeed": [_seed(result) for result in results],
        "secondsByStage": seconds_by_stage(results),
    }
    pairs = baseline_and_best(finished)
    if pairs and all(before.trace(axis1=1, axis2=2).any() for before, _ in pairs):
        summary["relativeGain"] = relative_gain(pairs).to_json()
    return summary


def _difference_from_headline(rows: StudyRows, row: Row) -> dict[str, float] | None:
    """Return F1 of the row's best minus that of the headline row's best, paired by seed.

    An evolution is compared with the headline row's best after as many generations.
    """
    if row.name == rows.study.headline:
        return None
    of_row = rows.finished_seeds(row)
    of_headline = rows.finished.get(rows.study.headline, {})
    pairs = []
    for seed in sorted(set(of_row) & set(of_headline)):
        one, headline = of_row[seed], of_headline[seed]
        last = one.result.generations[-1].generation if row.kind is Kind.EVOLUTION else None
        best = headline.result.best_after(last)
        pairs.append((headline.confusions[best, TEST], one.confusions[one.result.selected, TEST]))
    return difference(pairs).to_json() if pairs else None


def _promotions(study: Study, finished: Mapping[int, FinishedRow]) -> list[dict[str, Any]]:
    """Return each promotion with its change of F1 on dev and on test."""
    labels = study.spec["dataset"]["labels"]
    label_prior = study.spec["dataset"].get("labelPrior")
    summaries = []
    for seed, row in sorted(finished.items()):
        promoted = {
            g: row.confusions[g, TEST] for g in row.result.promoted if (g, TEST) in row.confusions
        }
        for promotion in compare_promotions(promoted):
            before, after = (row.confusions[g, DEV] for g in (promotion.before, promotion.after))
            weighted = f1_change(before, after, labels, label_prior) if label_prior else None
            summaries.append(
                {
                    "seed": seed,
                    "before": promotion.before,
                    "after": promotion.after,
                    "dev": round(f1_change(before, after, labels), 6),
                    "devWeighed": None if weighted is None else round(weighted, 6),
                    "change": promotion.change.to_json(),
                    "worse": promotion.worse,
                }
            )
    return summaries


def _collapse_metrics(finished: Mapping[int, FinishedRow]) -> list[dict[str, float]]:
    return [
        {
            "seed": seed,
            "generation": generation,
            "entropy": round(metrics.entropy, 4),
            "divergence": round(metrics.divergence, 4),
        }
        for seed, row in sorted(finished.items())
        for generation, metrics in collapse_metrics_by_generation(row.confusions).items()
    ]


def _seed(result: RowResult) -> dict[str, Any]:
    return {
        "seed": result.seed,
        "phase": result.phase,
        "message": result.message,
        "best": result.selected,
        "generations": [g.to_json() for g in result.generations],
        "curve": [p.to_json() for p in result.curve],
    }


def seconds_by_stage(results: Iterable[RowResult]) -> dict[str, float]:
    """Return the seconds spent in each stage over all generations, as the mean over runs.

    Parameters
    ----------
    results
        The results of a row's seeds.
    """
    runs = list(results)
    total = dict.fromkeys(STAGES, 0.0)
    for result in runs:
        for generation in result.generations:
            for stage, seconds in generation.seconds.items():
                total[stage] = total.get(stage, 0.0) + seconds
    return {stage: round(s / len(runs), 1) for stage, s in total.items() if s} if runs else {}


def _mean(by_seed: Sequence[Confusion]) -> dict[str, float] | None:
    return mean_f1(by_seed).to_json() if by_seed else None
