"""The plots of `selfemo watch`."""

from __future__ import annotations

import io

from rich.cells import cell_len
from rich.console import Console

from selfemo_api.results import SourceScore
from selfemo_operator.cli.terminal.plots import EmotionPlot


def lines_of(labels: tuple[str, ...]) -> list[str]:
    values = [0.5] * len(labels)
    score = SourceScore(
        source="dev",
        utterances=10,
        weighted_f1=0.5,
        strict_weighted_f1=0.5,
        macro_f1=0.5,
        accuracy=0.5,
        unparsable=0.0,
        label_entropy=0.9,
        f1_by_label=values,
    )
    console = Console(file=io.StringIO(), width=60)
    console.print(EmotionPlot("F1", labels, score, None))
    return console.file.getvalue().splitlines()[1:]  # type: ignore[attr-defined]


def test_bars_begin_in_one_column_whatever_the_script() -> None:
    for labels in (("joy", "neutral"), ("开心", "joy", "ดีใจ", "非常难过")):
        starts = {cell_len(line.partition("█")[0]) for line in lines_of(labels)}
        assert starts == {max(map(cell_len, labels)) + 1}
