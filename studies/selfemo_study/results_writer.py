"""Writes a study's results: the summary and the table, the page and its charts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from selfemo_api.text.files import write_atomically
from selfemo_jobs.runtime.program import versions
from selfemo_study import study_charts
from selfemo_study.equal_compute import Curves, compare_at_equal_compute, time_curves
from selfemo_study.expression_files import expression_file, read_expression, settings_of_rows
from selfemo_study.expression_page import with_expression
from selfemo_study.finished_rows import StudyRows, dev_f1_by_generation, read_rows
from selfemo_study.statistics import Interval
from selfemo_study.study_config import Kind, Study
from selfemo_study.study_folders import StudyFolders
from selfemo_study.study_page import page_text
from selfemo_study.summary import generations_table, summarize


def write_results(study: Study, folders: StudyFolders, pages: Path, figures: Path) -> Path:
    """Write all of a study's results and return the path of the page.

    Parameters
    ----------
    study
        The study.
    folders
        The folders where its rows ran.
    pages
        The folder of the page ``<name>.md``, its charts ``<name>-*.svg`` and the summary
        ``<name>.json``.
    figures
        The folder of the table ``<name>.parquet``.

    Raises
    ------
    StudyError
        If the result of a row cannot be read.
    """
    rows = read_rows(study, folders)
    machine = {"cores": len(os.sched_getaffinity(0)), "versions": versions()}
    summary = summarize(rows, machine)
    curves = time_curves(rows)
    comparisons = compare_at_equal_compute(curves, study.headline)
    expression = read_expression(expression_file(study, figures))
    summary = with_expression(summary, study, expression, settings_of_rows(study))
    summary["equalCompute"] = [comparison.to_json() for comparison in comparisons]
    pages.mkdir(parents=True, exist_ok=True)
    figures.mkdir(parents=True, exist_ok=True)
    pq.write_table(generations_table(rows), figures / f"{study.name}.parquet", compression="zstd")
    write_atomically(pages / f"{study.name}.json", json.dumps(summary, indent=1) + "\n")
    charts = draw_charts(rows, summary, curves, pages)
    page = pages / f"{study.name}.md"
    relative = Path(os.path.relpath(figures, pages)).as_posix()
    write_atomically(page, page_text(study, summary, charts, relative))
    return page


def draw_charts(
    rows: StudyRows, summary: Mapping[str, Any], curves: Curves, folder: Path
) -> dict[str, str]:
    """Draw the charts for which there are figures; return their file names by what they show.

    Parameters
    ----------
    rows
        The study's rows.
    summary
        The study's summary.
    curves
        Dev F1 against seconds, by row and seed.
    folder
        The folder of the charts.
    """
    study = rows.study
    names: dict[str, str] = {}

    def add(chart: str) -> Path:
        names[chart] = f"{study.name}-{chart}.svg"
        return folder / names[chart]

    finished = [(row.name, rows.finished_seeds(row)) for row in study.rows
                if row.kind is Kind.EVOLUTION and rows.finished_seeds(row)]  # fmt: skip
    if finished:
        by_generation = [
            study_charts.GenerationCurve(name, dev_f1_by_generation(seeds))
            for name, seeds in finished
        ]
        study_charts.draw_generations(add("generations"), by_generation, study.headline)
    bars = [
        study_charts.GainBar(row["name"], Interval(**row["relativeGain"]))
        for row in summary["rows"]
        if row["relativeGain"]
    ]
    if bars:
        study_charts.draw_gains(add("gains"), bars, study.headline)
    seconds = {r["name"]: r["secondsByStage"] for r in summary["rows"] if r["secondsByStage"]}
    if seconds:
        study_charts.draw_costs(add("costs"), seconds)
    if len(curves) > 1:
        study_charts.draw_time(add("time"), curves)
    return names
