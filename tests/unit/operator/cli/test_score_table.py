"""The table of generations: which figures it has."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from tests.unit.operator.planner.simulated_world import score_of, spec_of

from selfemo_api.evolution import EmotionEvolution, Metadata
from selfemo_api.results import ExpressionChange, ExpressionScore, SourceScore
from selfemo_api.status import Best, GenerationRecord, Outcome
from selfemo_operator.cli.terminal.evolution_view import (
    StageProgress,
    evolution_view,
    status_changes,
)
from selfemo_operator.cli.terminal.score_table import generation_table, plan_table, summary

NAMES = ("dev", "test")


def evolution(by_sets: str = "") -> EmotionEvolution:
    """Return an evolution whose dataset `by_sets` is compared by sets of labels."""
    source = {"name": "demo", "uri": "file:///demo.jsonl", "format": "JSONL", "use": "SelfPlay"}
    spec = spec_of(
        dataset={
            "sources": [source, *({**source, "name": n, "use": "Evaluation"} for n in NAMES)],
        }
    )
    history = [
        GenerationRecord(
            generation=generation,
            outcome=Outcome.PROMOTED if generation else Outcome.BASELINE,
            f1=0.4,
            scores=[score(name, generation, name == by_sets) for name in NAMES],
            model_uri="file:///model",
        )
        for generation in range(3)
    ]
    plain = EmotionEvolution(metadata=Metadata(name="demo"), spec=spec)
    status = plain.status.model_copy(update={"history": history})
    return plain.model_copy(update={"status": status})


def with_expression(evolution: EmotionEvolution) -> EmotionEvolution:
    """Return an evolution whose responder plays; each generation is a little better."""
    records = []
    for record in evolution.status.history:
        share, change = 0.3 + 0.05 * record.generation, 0.05 * record.generation
        expression = ExpressionScore(
            source="dev",
            responses=140,
            dialogues=20,
            as_intended=share,
            as_intended_low=share - 0.04,
            as_intended_high=share + 0.04,
            consistency=0.62,
            diversity=0.71,
            words=9.5,
            named=0.04,
            well_formed=1.0,
            human=0.55,
            as_intended_by_label=[share] * 7,
            over_baseline=ExpressionChange(
                generation=0, change=change, low=change - 0.08, high=change + 0.08
            ),
        )
        records.append(record.model_copy(update={"expression": expression}))
    status = evolution.status.model_copy(update={"history": records})
    return evolution.model_copy(update={"status": status})


def long_evolution() -> EmotionEvolution:
    """Return an evolution of 18 generations. The best one is older than the history."""
    plain = evolution("dev")
    history = [
        GenerationRecord(
            generation=generation,
            outcome=Outcome.ROLLED_BACK,
            f1=0.41,
            scores=[score_of(0.41, source=name) for name in NAMES],
            model_uri="file:///model",
            stage_seconds={"Train": 3.0},
        )
        for generation in range(8, 18)
    ]
    status = plain.status.model_copy(
        update={
            "history": history,
            "baseline": score_of(0.35, source="dev"),
            "best": Best(generation=2, f1=0.4321, model_uri="file:///model"),
        }
    )
    return plain.model_copy(update={"status": status})


def score(name: str, generation: int, by_sets: bool) -> SourceScore:
    figures = {"micro_f1": 0.61 + generation / 100, "jaccard": 0.52, "samples_f1": 0.63}
    return score_of(0.4, source=name, **(figures if by_sets else {}))


def drawn(evolution: EmotionEvolution, *, intervals: bool = True) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(generation_table(evolution, intervals=intervals))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_one_label_needs_no_further_columns() -> None:
    table = drawn(evolution())
    assert "F1 dev" in table
    assert "Jaccard" not in table
    assert "Jaccard" not in "".join(status_changes(None, evolution()))


def test_label_sets_of_the_selection_dataset_have_their_figures() -> None:
    for intervals in (True, False):
        table = drawn(evolution("dev"), intervals=intervals)
        assert "Micro F1" in table
        assert "Jaccard" in table
        assert "Jaccard" not in drawn(evolution("test"), intervals=intervals)
        row = next(line for line in table.splitlines() if "0.6200" in line)
        assert row.split("│")[1].split()[0] == "1"
        assert row.index("0.6200") < row.index("0.5200")


def test_generation_0_and_the_best_one_are_shown_after_any_number_of_generations() -> None:
    table = drawn(long_evolution())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines()]
    rows = [row for row in rows if len(row) == 7]
    assert [row[0] for row in rows] == ["0", "2 *", *map(str, range(8, 18))]
    assert rows[0] == ["0", "baseline", "0.3500 [0.330, 0.370]", "-", "", "", ""]
    assert rows[1] == ["2 *", "promoted", "0.4321", "-", "", "", ""]
    assert "Omitted: 6 generations (see the report)" in table
    assert "Omitted" not in drawn(evolution())


def test_the_plot_of_f1_has_generation_0_and_the_best_one() -> None:
    console = Console(file=io.StringIO(), width=160)
    now = datetime(2026, 11, 23, tzinfo=UTC)
    console.print(evolution_view(long_evolution(), StageProgress(), now))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    plot = text[text.rindex("F1 by generation") :].splitlines()[1:]
    assert plot[0].split()[0] == "0"
    assert plot[0][:50].split()[-1] == "0.3500"
    best = next(line for line in plot if "★" in line)
    assert best.split()[0] == "2"
    assert "0.4321" in best


def test_the_result_for_programs_has_the_baseline() -> None:
    result = summary(long_evolution())
    assert result["baseline"]["weightedF1"] == 0.35
    assert (result["best"]["generation"], result["best"]["f1"]) == (2, 0.4321)
    assert summary(evolution())["baseline"] is None


def test_expression_has_a_column_where_the_responder_plays() -> None:
    assert "Expression" not in drawn(evolution())
    with_figures = with_expression(evolution())
    table = drawn(with_figures)
    row = next(line for line in table.splitlines() if "0.400 [0.360, 0.440]" in line)
    assert row.split("│")[1].split()[0] == "2"
    narrow = drawn(with_figures, intervals=False)
    assert "0.400" in narrow
    assert "0.360" not in narrow
    lines = list(status_changes(None, with_figures))
    assert any("expression 0.350 [0.310, 0.390]" in line for line in lines)
    assert "expression" not in "".join(status_changes(None, evolution()))


def test_the_view_has_the_expression_of_the_last_generation() -> None:
    console = Console(file=io.StringIO(), width=160)
    now = datetime(2026, 11, 23, tzinfo=UTC)
    console.print(evolution_view(with_expression(evolution()), StageProgress(), now))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Expression, generation 2" in text
    assert (
        "0.400 [0.360, 0.440] of the responses are classified as intended; human turns 0.550"
    ) in text
    assert "+0.100 [+0.020, +0.180] over generation 0" in text
    assert "consistency 0.620, diversity 0.710, 9.5 words, emotion named explicitly 4.0%" in text
    assert "neutral 0.40, " in text


def test_lines_of_watch_have_the_figures_of_the_selection_dataset() -> None:
    lines = list(status_changes(None, evolution("dev")))
    assert any("micro F1 0.6200, Jaccard 0.5200" in line for line in lines)
    assert "Jaccard" not in "".join(status_changes(None, evolution("test")))


def plan_of(**spec: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    plain = EmotionEvolution(metadata=Metadata(name="demo"), spec=spec_of(**spec))
    console.print(plan_table(plain))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_plan_has_the_stages_of_generation_0_and_what_differs_from_the_recipe() -> None:
    plan = plan_of()
    assert re.search(r"generation 0 +│ check > evaluate +│", plan)
    assert re.search(r"differs from the recipe +│ nothing +│", plan)
    assert "all weights" in plan
    plan = plan_of(warmStart={"steps": 90}, training={"trainLayers": 2})
    assert re.search(r"check > warm start \(at most 90 steps\) > evaluate", plan)
    assert "training.trainLayers=2, warmStart.steps=90" in plan
    assert "last layers: 2" in plan
    assert "LoRA rank 8" in plan_of(training={"lora": {"rank": 8}})
