"""Expression in a study's summary and on its page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfemo_study.expression_counts import INDEPENDENT, StudyExpression, row_expression
from selfemo_study.study_config import Study

_HEAD = (
    "| row | judge | generation 0 | best | change | human turns |",
    "| --- | --- | --- | --- | --- | --- |",
)


def with_expression(
    summary: Mapping[str, Any],
    study: Study,
    expression: StudyExpression,
    settings: Mapping[tuple[str, int], str],
) -> dict[str, Any]:
    """Return a study's summary with the expression of its rows.

    Parameters
    ----------
    summary
        The summary, without expression.
    study
        The study.
    expression
        What the judges read.
    settings
        The hash of the settings of each row and seed, as the study's file has them now. Readings of
        other settings do not count.
    """
    by_row = {
        row.name: row_expression(
            [
                one
                for one in expression.rows
                if one.row == row.name and settings.get((one.row, one.seed)) == one.settings
            ]
        )
        for row in study.rows
    }
    headline = by_row.get(study.headline)
    gain = headline["independentGain"] if headline else None
    rows = [{**row, "expression": by_row.get(row["name"])} for row in summary["rows"]]
    return {
        **summary,
        "expression_gain": gain["value"] if gain else None,
        "expression_gain_interval": [gain["low"], gain["high"]] if gain else None,
        "rows": rows,
    }


def expression_section(summary: Mapping[str, Any]) -> list[str]:
    """Return the section of the page; empty if no row has expression.

    Parameters
    ----------
    summary
        The summary with expression.
    """
    rows = [row for row in summary["rows"] if row.get("expression")]
    if not rows:
        return []
    independent = " and ".join(f"`{name}`" for name in INDEPENDENT)
    lines = [*_HEAD]
    for row in rows:
        for judge, figures in row["expression"]["judges"].items():
            human = figures["humanTurns"]
            lines.append(
                f"| {row['name']} | {judge} | {figures['generationZero']:.3f} | "
                f"{figures['best']:.3f} | {_change(figures['gain'])} | "
                f"{'–' if human is None else f'{human:.3f}'} |"
            )
        gain = row["expression"]["independentGain"]
        if gain:
            lines.append(f"| {row['name']} | both independent judges | | | {_change(gain)} | |")
    return [
        "## Expression",
        "Fraction of the responses to dev contexts that a judge classifies as intended, as the "
        "mean over seeds. Each context gets one response per emotion. The judge `baseline` is "
        f"generation 0's model. The evolution never sees {independent}: they are trained on all "
        "labels. *Human turns* is the fraction of human turns that the judge classifies as their "
        "own label, as the mean over the emotions: the limit. Intervals are 95%, paired by seed "
        "and dialogue.",
        "\n".join(lines),
        _responses_table(rows),
    ]


def _responses_table(rows: list[Mapping[str, Any]]) -> str:
    """Return what the responses are like: generation 0, then the best generation."""
    lines = [
        "| row | distinct-2 | with equally many word pairs | words | emotion named | well formed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        before, after = row["expression"]["generationZero"], row["expression"]["best"]
        cells = [
            ", ".join(_number(figures[name], digits) for figures in (before, after))
            for name, digits in (
                ("diversity", ".3f"),
                ("equalDiversity", ".3f"),
                ("words", ".1f"),
                ("named", ".3f"),
                ("wellFormed", ".3f"),
            )
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float | None, digits: str) -> str:
    return "–" if value is None else f"{value:{digits}}"


def _change(gain: Mapping[str, float] | None) -> str:
    if gain is None:
        return "–"
    return f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
