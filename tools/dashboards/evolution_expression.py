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
            "Classified as intended",
            "Fraction of the responses to held-out contexts that the baseline's model classifies "
            "as the intended emotion, with its 95% confidence interval, and the model's accuracy "
            "on human turns, for comparison. Requires `Responder` in `selfPlay.roles`.",
            "percentunit",
            [
                (one("expression_ratio"), "responses"),
                (one("expression_low_ratio"), "low"),
                (one("expression_high_ratio"), "high"),
                (one("expression_human_ratio"), "human turns"),
            ],
            dashed=["low", "high", "human turns"],
        ),
        _lines(
            "Gain in expression",
            "The fraction of responses classified as intended, minus generation 0's, with its "
            "paired 95% confidence interval, and minus the previous best generation's.",
            "percentunit",
            [
                (one("expression_gain_ratio"), "over generation 0"),
                (one("expression_gain_low_ratio"), "low"),
                (one("expression_gain_high_ratio"), "high"),
                (one("expression_gain_over_best_ratio"), "over the previous best"),
            ],
            decimals=2,
            dashed=["low", "high"],
        ),
        _lines(
            "Expression by emotion",
            "Fraction of the responses for each intended emotion that are classified as intended.",
            "percentunit",
            [(by("emotion", "expression_emotion_ratio"), "{{emotion}}")],
        ),
        _lines(
            "Response statistics",
            "Mean agreement of the judge's predictions for a response, fraction of distinct "
            "bigrams, and fraction of responses that name the intended emotion outright. If "
            "expression rises while the last one rises or the distinct bigrams fall, the responder "
            "has found a shortcut.",
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
            "Words per response",
            "Mean number of words per response to a held-out context.",
            "none",
            [(one("expression_words_mean"), "words")],
            width=24,
            height=6,
            decimals=1,
            bounds=(0.0, None),
        ),
    ],
)
