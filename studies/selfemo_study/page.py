"""Writes a study's results: a table, a summary, a page with pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from selfemo_api.spec import CollapseBounds
from selfemo_api.text.files import write_atomically
from selfemo_jobs.runtime.program import versions
from selfemo_study import pictures
from selfemo_study.comparison import (
    Collected,
    by_generation,
    collect,
    summary_of,
    table_of,
)
from selfemo_study.paths import Places
from selfemo_study.row_record import DEV
from selfemo_study.statistics import Interval
from selfemo_study.study_config import Kind, Study
from selfemo_study.wall_time import Curves, curves_of, equal_compute


def write_page(study: Study, places: Places, folder: Path, figures: Path) -> Path:
    """Write all of a study's results and return the page.

    Parameters
    ----------
    study
        The study.
    places
        Where its rows ran.
    folder
        The folder of the page and its pictures.
    figures
        The folder of the summary ``<name>.json`` and of the table ``<name>.parquet``.
    """
    collected = collect(study, places)
    machine = {"cores": len(os.sched_getaffinity(0)), "versions": versions()}
    summary = summary_of(collected, machine)
    curves = curves_of(collected)
    beside = equal_compute(curves, study.headline)
    summary["equalCompute"] = [found.to_json() for found in beside]
    folder.mkdir(parents=True, exist_ok=True)
    figures.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(collected), figures / f"{study.name}.parquet", compression="zstd")
    write_atomically(figures / f"{study.name}.json", json.dumps(summary, indent=1) + "\n")
    pictures = draw(collected, summary, curves, folder)
    page = folder / f"{study.name}.md"
    links = Path(os.path.relpath(figures, folder)).as_posix()
    write_atomically(page, page_text(study, summary, pictures, links))
    return page


def draw(
    collected: Collected, summary: Mapping[str, Any], curves: Curves, folder: Path
) -> dict[str, str]:
    """Draw what there is to be drawn; return the files' names by what they show."""
    study, found = collected.study, {}
    evolutions = [r for r in study.rows if r.kind is Kind.EVOLUTION and collected.of(r)]
    if evolutions:
        found["generations"] = f"{study.name}-generations.svg"
        traces = [pictures.Trace(r.name, by_generation(collected.of(r), DEV)) for r in evolutions]
        pictures.generations(folder / found["generations"], traces, study.headline, "dev")
    bars = [
        pictures.Bar(row["name"], Interval(**row["relativeGain"]))
        for row in summary["rows"]
        if row["relativeGain"]
    ]
    if bars:
        found["gains"] = f"{study.name}-gains.svg"
        pictures.gains(folder / found["gains"], bars, study.headline)
    seconds = {r["name"]: r["secondsByStage"] for r in summary["rows"] if r["secondsByStage"]}
    if seconds:
        found["costs"] = f"{study.name}-costs.svg"
        pictures.costs(folder / found["costs"], seconds)
    if len(curves) > 1:
        found["time"] = f"{study.name}-time.svg"
        pictures.wall_time(folder / found["time"], curves)
    return found


def page_text(
    study: Study, summary: Mapping[str, Any], pictures: Mapping[str, str], figures: str
) -> str:
    """Return the page in Markdown.

    Parameters
    ----------
    study
        The study.
    summary
        Its summary, with ``equalCompute``.
    pictures
        File names of the pictures by what they show.
    figures
        The folder of the figures, relative to the page.
    """
    files = (f"{study.name}.json", f"{study.name}.parquet")
    links = ", ".join(f"[{name}]({(Path(figures) / name).as_posix()})" for name in files)
    parts = [
        f"# {study.title}",
        f"Made by `python -m selfemo_study results` from `studies/{study.name}.yaml`; not written "
        f"by hand. {_machine(summary['machine'])} Figures with all digits: "
        f"{links}.",
        *(f"- {note}" for note in study.notes),
        _answer(summary),
        _missing(summary),
        "## Rows",
        "Weighted F1 of the generation that dev chose, mean over seeds, with 95 % intervals: a "
        "bootstrap of 2,000 draws over seeds and whole dialogues. *Gain* is relative to the row's "
        "own generation 0, on the same dialogues; *less main* is the difference from "
        f"`{study.headline}`, paired by seed and dialogue, for an evolution after as many "
        "generations. Test was read once, at a row's end.",
        rows_table(summary["rows"]),
        *_pictures(pictures),
        *_equal_compute(summary),
        "## Generations",
        generations_table(summary["rows"]),
        _gate(summary["gate"]),
        *_signs(summary["rows"]),
        "## How each run ended",
        _ends(summary["rows"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(machine: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    return f"{machine['cores']} cores; {libraries}."


def _answer(summary: Mapping[str, Any]) -> str:
    if summary["relative_gain"] is None:
        return f"The row `{summary['headline']}` has not been run: there is no answer yet."
    text = f"**Relative gain on test: {_gain(summary, 'relative_gain')}.**"
    for name, what in (
        ("majority_vote_relative_gain", "Plain majority votes"),
        ("supervised_relative_gain", "As many steps on the labeled share alone"),
    ):
        if summary[name] is not None:
            text += f" {what}: {_gain(summary, name)}."
    worse = summary["promoted_and_worse"]
    if worse:
        return f"{text} Promoted on dev and worse on test beyond the interval: {'; '.join(worse)}."
    if not any(row["promotions"] for row in summary["rows"]):
        return f"{text} No generation of any row was promoted."
    return f"{text} No promoted generation is worse on test than the one before it beyond chance."


def _gate(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    text = (
        f"Over {found['promotions']} promotions of all rows, the change on dev goes with the one "
        f"on test at r = {found['correlation']:.2f}"
    )
    if found["correlationWeighed"] is None:
        return f"{text}."
    return (
        f"{text}; with dev weighed to `flywheel.labelPrior`, as `evaluation.labelPrior` does, at "
        f"r = {found['correlationWeighed']:.2f}."
    )


def _gain(summary: Mapping[str, Any], name: str) -> str:
    low, high = summary[f"{name}_interval"]
    return f"{_percent(summary[name])} [{_percent(low)}, {_percent(high)}]"


def _missing(summary: Mapping[str, Any]) -> str:
    """Return what did not run: a line for each row and reason."""
    if not summary["missing"]:
        return ""
    seeds: dict[tuple[str, str], list[str]] = {}
    for found in summary["missing"]:
        seeds.setdefault((found["row"], found["why"]), []).append(str(found["seed"]))
    lines = [f"- {row}, seed {', '.join(its)}: {why}" for (row, why), its in seeds.items()]
    return "**Incomplete.** Missing:\n\n" + "\n".join(lines)


def _equal_compute(summary: Mapping[str, Any]) -> list[str]:
    """Return how on-policy training and the headline row compare in time, in words."""
    headline, lines = summary["headline"], []
    for found in summary["equalCompute"]:
        when = found.get("headlineSeconds")
        line = (
            f"- {found['row']}, seed {found['seed']}: its best on dev is {found['onPolicy']:.4f}, "
            f"after {found['onPolicySeconds']:.0f} of its {found['seconds']:.0f} seconds. By its "
            f"end `{headline}` has {found['headline']:.4f}; "
        )
        if when is None:
            line += "it never has as much as on-policy training's best."
        elif when == 0:
            line += "its generation 0, where both start, has as much or more."
        else:
            share = when / found["onPolicySeconds"]
            line += (
                f"as much as on-policy training's best it has after {when:.0f} seconds, "
                f"{share:.2f} of the time."
            )
        lines.append(line)
    return ["## At equal compute", "\n".join(lines)] if lines else []


def rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the main table; a row that did not run says so."""
    head = "| row | why | seeds | dev | test | gain, test | less main, test |"
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        changed = ", ".join(f"`{k}: {json.dumps(v)}`" for k, v in row["set"].items())
        why = f"{row['why']} {changed}".strip()
        if not row["seeds"]:
            lines.append(
                f"| {row['name']} | {why} | none | missing | missing | missing | missing |"
            )
            continue
        seeds = ", ".join(map(str, row["seeds"])) + (
            f" (missing: {', '.join(map(str, row['missing']))})" if row["missing"] else ""
        )
        lines.append(
            f"| {row['name']} | {why} | {seeds} | {_f1(row['dev'])} | {_f1(row['test'])} | "
            f"{_relative(row['relativeGain'])} | {_signed(row['difference'])} |"
        )
    return "\n".join(lines)


def generations_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return every generation of every run."""
    head = "| row | seed | generation | outcome | dev | test | steps | kept groups | seconds |"
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        for run in row["bySeed"]:
            for g in run["generations"]:
                star = " *" if g["generation"] == run["best"] else ""
                lines.append(
                    f"| {row['name']} | {run['seed']} | {g['generation']}{star} | {g['outcome']} | "
                    f"{_digits(g.get('dev'))} | {_digits(g.get('test'))} | {g['steps']} | "
                    f"{g.get('keptGroups', '')} | {sum(g['seconds'].values()):.0f} |"
                )
    return "\n".join(lines) + "\n\n\\* what is used: the best on dev, or a control's trained model."


def _signs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how near each evolution came to the bounds of a collapse, if any was measured."""
    bounds = CollapseBounds()
    lines = []
    for row in rows:
        if row["signs"]:
            entropy = min(sign["entropy"] for sign in row["signs"])
            away = max(sign["divergence"] for sign in row["signs"])
            lines.append(f"| {row['name']} | {len(row['signs'])} | {entropy:.3f} | {away:.3f} |")
    if not lines:
        return []
    return [
        "## Signs of a collapse",
        "Of the labels predicted on dev, over all generations after 0, kept or not: the least "
        "entropy as a share of generation 0's, and the largest divergence from generation 0's "
        f"labels. A run is `Collapsed` below {bounds.min_entropy:g}, or above "
        f"{bounds.max_divergence:g} (the defaults).",
        "\n".join(
            [
                "| row | generations | least entropy | largest divergence |",
                "| --- | --- | --- | --- |",
                *lines,
            ]
        ),
    ]


def _pictures(pictures: Mapping[str, str]) -> list[str]:
    words = {
        "gains": "Relative gain over generation 0 on test, with 95 % intervals.",
        "generations": "Dev F1 by generation, mean over seeds, with its 95 % band; the headline "
        "row in gray.",
        "costs": "Seconds by stage of a whole run.",
        "time": "Dev F1 against seconds of work: the evolution's best so far, and on-policy "
        "training as it goes.",
    }
    return [
        f"![{words[name]}]({pictures[name]})\n\n{words[name]}" for name in words if name in pictures
    ]


def _ends(rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"- {row['name']}, seed {run['seed']}: {run['phase']}. {run['message']}"
        for row in rows
        for run in row["bySeed"]
    )


def _f1(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:.4f} [{found['low']:.3f}, {found['high']:.3f}]"


def _relative(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    low, high = _percent(found["low"]), _percent(found["high"])
    return f"{_percent(found['value'])} [{low}, {high}]"


def _signed(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    return f"{found['value']:+.4f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
