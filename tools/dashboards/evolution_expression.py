"""The row of the Evolution dashboard about expression, empty if the responder does not play."""

from __future__ import annotations

from tools.dashboards.board_types import Kind, Panel, Query, Row
from tools.dashboards.evolution_panels import by, one, panel


def _lines(
    title: str, text: str, unit: str, queries: list[tuple[str, str]], **more: object
) -> Panel:
    """Return a panel of lines, whose series are missing if the responder does not play."""
    listed = [Query(expr, legend, optional=True) for expr, legend in queries]
    return panel(Kind.LINES, title, text, unit, listed, **({"width": 6, "height": 8} | more))


EXPRESSION = Row(
    "Expression",
    [
        _lines(
            "Read as intended",
            "Share of the responses to held-out contexts that the baseline's model reads as the "
            "intended emotion, with its 95 % interval, and the share of real turns that it reads "
            "as their own label: what is in reach. It needs `Responder` in `selfPlay.roles`.",
            "percentunit",
            [
                (one("expression_ratio"), "responses"),
                (one("expression_low_ratio"), "low"),
                (one("expression_high_ratio"), "high"),
                (one("expression_human_ratio"), "real turns"),
            ],
            dashed=["low", "high", "real turns"],
        ),
        _lines(
            "Gain in expression",
            "The share that is read as intended, minus that of generation 0 with its paired 95 % "
            "interval, and minus that of the generation that was the best before.",
            "percentunit",
            [
                (one("expression_gain_ratio"), "over generation 0"),
                (one("expression_gain_low_ratio"), "low"),
                (one("expression_gain_high_ratio"), "high"),
                (one("expression_gain_over_best_ratio"), "over the best before"),
            ],
            decimals=2,
            dashed=["low", "high"],
        ),
        _lines(
            "Expression by emotion",
            "Share of the responses of each intended emotion that are read as intended.",
            "percentunit",
            [(by("emotion", "expression_emotion_ratio"), "{{emotion}}")],
        ),
        _lines(
            "What responses are like",
            "Mean agreement of the readings of a response, share of distinct bigrams, and share of "
            "responses that name the intended emotion outright. If expression rises while the last "
            "one rises or the distinct bigrams fall, the responder has found a shortcut.",
            "percentunit",
            [
                (one("expression_consistency_ratio"), "consistency"),
                (one("expression_diversity_ratio"), "distinct bigrams"),
                (one("expression_named_ratio"), "emotion named"),
            ],
            width=6,
            bounds=(0.0, 1.0),
        ),
        _lines(
            "Words of a response",
            "Mean number of words of a response to a held-out context.",
            "none",
            [(one("expression_words_mean"), "words")],
            width=24,
            height=6,
            decimals=1,
            bounds=(0.0, None),
        ),
    ],
)
