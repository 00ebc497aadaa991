"""An evolution as a terminal shows it: pure, from the resource to what rich draws.

`selfemo watch` and `kubectl selfemo watch` draw the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from selfemo_api.collapse import Sign, label_signs, stage_signs
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionType, EvolutionStatus, GenerationRecord, Phase
from selfemo_api.text.formatting import duration
from selfemo_operator.cli.terminal.plots import EmotionPlot, F1Plot
from selfemo_operator.cli.terminal.score_table import OUTCOMES, generation_table, with_interval

_STYLES = {
    Phase.RUNNING: "bold cyan",
    Phase.SUCCEEDED: "bold green",
    Phase.COLLAPSED: "bold red",
    Phase.FAILED: "bold red",
}


@dataclass(frozen=True)
class Activity:
    """What is known of the stage under way beside the status."""

    done: float | None = None
    """How far it is, of `total`; None where it has not said."""
    total: float = 1.0
    figures: str = ""
    note: str = ""
    """What a person should know of the view itself, e.g. that nobody is at work."""


@dataclass(frozen=True)
class _Generations:
    """The table of generations; its intervals are left out where they have no room."""

    evolution: EmotionEvolution

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = generation_table(self.evolution)
        wide = Measurement.get(console, options.update(max_width=1000), table).maximum
        yield (
            table
            if wide <= options.max_width
            else generation_table(self.evolution, intervals=False)
        )


def picture(evolution: EmotionEvolution, activity: Activity, now: datetime) -> RenderableType:
    """Return the whole view.

    Parameters
    ----------
    evolution
        The resource with its status.
    activity
        Of the stage under way.
    now
        Durations are counted up to here.
    """
    status = evolution.status
    parts: list[RenderableType] = [_headline(evolution, now)]
    if activity.done is not None and not status.finished:
        parts.append(_bar(activity))
    parts += _messages(status, activity)
    if status.history:
        parts += ["", _Generations(evolution), "", _plots(evolution)]
    parts += _signs(evolution)
    return Group(*parts)


def news(before: EmotionEvolution | None, after: EmotionEvolution) -> Iterator[str]:
    """Yield what is new since the last look, a line each: for output that is no terminal."""
    old, new = before.status if before else EvolutionStatus(), after.status
    seen = {record.generation for record in old.history}
    for record in new.history:
        if record.generation not in seen:
            yield _finished(record)
    if new.last_failure and new.last_failure != old.last_failure:
        yield f"last failure: {new.last_failure}"
    if new.finished or new.phase is not Phase.RUNNING:
        if before is None or (old.phase, _message(old)) != (new.phase, _message(new)):
            yield f"{new.phase.value}: {_message(new)}"
    elif before is None or _place(old) != _place(new):
        yield f"{new.phase.value}: {_place(new)}"


def _place(status: EvolutionStatus) -> str:
    """Return where an evolution stands."""
    words = f"generation {status.generation}"
    if status.stage is not None:
        words += f" {status.stage.value}"
    return words + (f", attempt {status.attempt}" if status.attempt > 1 else "")


def _message(status: EvolutionStatus) -> str:
    """Return the planner's own words."""
    kind = ConditionType.SUCCEEDED if status.finished else ConditionType.PROGRESSING
    condition = status.condition(kind)
    if condition is None:
        return "not yet begun"
    return f"{condition.reason}: {condition.message}" if condition.message else condition.reason


def _finished(record: GenerationRecord) -> str:
    words = [f"generation {record.generation} is {OUTCOMES[record.outcome]}:"]
    words.append(f"F1 {with_interval(record.scores[0])}" if record.scores else "not evaluated")
    if record.reward is not None:
        words.append(f"reward {record.reward:.3f}")
    if record.kept is not None:
        words.append(f"kept {record.kept}")
    return " ".join([*words, f"in {duration(sum(record.stage_seconds.values()))}"])


def _headline(evolution: EmotionEvolution, now: datetime) -> Text:
    """Name, phase, place; how long in all, and how long since the stage last moved."""
    status, metadata = evolution.status, evolution.metadata
    line = Text.assemble(
        (f"{metadata.namespace}/{metadata.name}", "bold"),
        "  ",
        (status.phase.value, _STYLES.get(status.phase, "bold")),
    )
    if not status.finished and status.start_time is not None:
        line.append(f"  {_place(status)}")
        if status.last_progress_time is not None and status.phase is Phase.RUNNING:
            line.append(f" for {_since(status.last_progress_time, now)}")
        line.append(f"  {evolution.spec.evolution.max_generations} generations at most", "dim")
    if status.start_time is not None:
        line.append(f"  {_since(status.start_time, status.completion_time or now)} in all", "dim")
    return line


def _since(start: datetime, end: datetime) -> str:
    return duration(max((end - start).total_seconds(), 0.0))


def _bar(activity: Activity) -> Table:
    done = activity.done or 0.0
    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=activity.total, completed=done, width=30),
        f"{done:.0f}/{activity.total:.0f}",
        Text(activity.figures),
    )
    return row


def _messages(status: EvolutionStatus, activity: Activity) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(_message(status))]
    if status.last_failure:
        counts = f"{status.failures} by its own fault, {status.disruptions} by the outside"
        lines.append(Text(f"Last failure ({counts}): {status.last_failure}", "red"))
    if activity.note:
        lines.append(Text(activity.note, "yellow"))
    return lines


def _plots(evolution: EmotionEvolution) -> RenderableType:
    """Put the plots side by side where there is room, or else below each other."""
    status, goal = evolution.status, evolution.spec.evolution.goal
    plots: list[RenderableType] = []
    points = tuple(record for record in status.history if record.f1 is not None)
    if points:
        best = status.best.generation if status.best else None
        plots.append(F1Plot(points, best, goal.f1 if goal else None))
    scored = next((r for r in reversed(status.history) if r.scores), None)
    if scored and scored.scores[0].f1_by_label:
        score = scored.scores[0]
        title = f"F1 by emotion, generation {scored.generation}, {score.source}"
        labels = tuple(evolution.spec.dataset.labels)
        plots.append(EmotionPlot(title, labels, score, status.baseline))
    return Columns([Padding(plot, (0, 3, 0, 0)) for plot in plots])


def _signs(evolution: EmotionEvolution) -> list[RenderableType]:
    """Return the newest of each sign of collapse in one line, those past their bounds in red."""
    status, bounds = evolution.status, evolution.spec.evolution.collapse
    signs: list[Sign] = []
    scored = next((r for r in reversed(status.history) if r.scores), None)
    if scored is not None and status.baseline is not None:
        signs += label_signs(scored.scores[0], status.baseline, bounds)
    for result in status.current.results if status.current else []:
        signs += stage_signs(result.stage, result.metrics, bounds)
    if not signs:
        return []
    line = Text("Signs of collapse", "bold")
    for sign in signs:
        word = "below" if sign.falls else "above"
        line.append(
            f"\n  {sign.name}: {sign.value:.3f} (collapse {word} {sign.bound:g})",
            "red" if sign.crossed else "not bold",
        )
    return ["", line]
