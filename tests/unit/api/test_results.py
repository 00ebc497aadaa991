"""Termination messages have at most 4 KiB, and are decoded to what was encoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.metrics import CheckMetric
from selfemo_api.results import (
    TERMINATION_MESSAGE_BYTES,
    ExpressionChange,
    ExpressionScore,
    FailureMessage,
    ShardResult,
    SourceScore,
    StageResult,
    decode_message,
    encode_message,
)
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_api.text.control_characters import printable_lines

SHARE = st.floats(0.0, 1.0)
URI = st.text("abcdefghij/-", min_size=1, max_size=250).map(lambda path: f"s3://bucket/{path}")


@st.composite
def results(draw: st.DrawFn, *, sources: int = 16, labels: int = 64) -> StageResult:
    # few values are drawn and repeated up to the length: drawing thousands would only take time
    lists = st.lists(SHARE, min_size=8, max_size=8).map(lambda values: (values * labels)[:labels])
    scores = [
        SourceScore(
            source=f"source-{index}",
            utterances=draw(st.integers(0, 10**6)),
            f1_by_label=draw(lists),
            predicted_shares=draw(lists),
            weighted_f1_low=draw(st.none() | SHARE),
            jaccard=draw(st.none() | SHARE),
            labels_per_answer=draw(st.none() | st.floats(0.0, 64.0)),
            **{name: draw(SHARE) for name in SHARES},
        )
        for index in range(draw(st.integers(0, sources)))
    ]
    return StageResult(
        stage=draw(st.sampled_from(STAGE_ORDER)),
        generation=draw(st.integers(0, 999)),
        manifest=draw(URI),
        manifest_sha256="a" * 64,
        metrics=draw(st.dictionaries(st.text("abcdefgh", min_size=1), SHARE, max_size=8)),
        scores=scores,
        model_uri=draw(st.none() | URI),
        seconds=draw(SHARE),
        reused=draw(st.booleans()),
    )


SHARES = (
    "weighted_f1",
    "strict_weighted_f1",
    "macro_f1",
    "accuracy",
    "unparsable",
    "label_entropy",
)


@given(results(sources=2, labels=7))
def test_a_short_result_is_not_cut(result: StageResult) -> None:
    assert decode_message(encode_message(result)) == result


@given(results())
def test_a_long_result_keeps_what_the_planner_reads(result: StageResult) -> None:
    text = encode_message(result)
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    decoded = decode_message(text)
    assert isinstance(decoded, StageResult)
    assert decoded.scores[:1] == result.scores[:1]
    assert decoded.model_copy(update={"scores": []}) == result.model_copy(update={"scores": []})
    for cut, score in zip(decoded.scores, result.scores, strict=False):
        assert cut.weighted_f1 == score.weighted_f1


@given(st.text(max_size=2048), st.sampled_from(["BadInput", "Unavailable", "Internal"]))
def test_any_error_can_be_encoded(error: str, kind: str) -> None:
    decoded = decode_message(encode_message(FailureMessage(error=error, kind=kind)))
    assert isinstance(decoded, FailureMessage)
    assert decoded.kind == kind
    assert printable_lines(error).startswith(decoded.error)


@pytest.mark.parametrize("letter", ["x", "é", "😀", "\x00", '"', "\udc80"])
def test_a_long_error_is_cut(letter: str) -> None:
    text = encode_message(FailureMessage.model_construct(error=letter * 2048, kind="Internal"))
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    decoded = decode_message(text)
    assert isinstance(decoded, FailureMessage)
    assert len(decoded.error) > 300


@given(st.integers(0, 999), st.integers(0, 1023))
def test_a_shard_result_is_not_decoded_as_a_stage_result(generation: int, shard: int) -> None:
    message = ShardResult(stage=Stage.SELF_PLAY, generation=generation, shard=shard)
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        StageResult(
            stage=Stage.EVALUATE,
            generation=1,
            manifest="file:///m",
            manifest_sha256="0" * 64,
            scores=[SourceScore(source="dev", utterances=3, **dict.fromkeys(SHARES, 0.5))],
        ),
        ShardResult(stage=Stage.SELF_PLAY, generation=1, shard=2),
        FailureMessage(error="full", kind="BadInput"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_fields_of_a_newer_version_are_left_out(message: Any) -> None:
    """As an operator reads it after a rollback."""
    newer = {**message.to_json(), "newer": {"a": 1}}
    if "scores" in newer:
        newer["scores"][0]["newer"] = 1
    assert decode_message(json.dumps(newer)) == message


@given(st.text(max_size=40) | results().map(encode_message).map(lambda text: text[:-1]))
def test_another_text_is_not_decoded(text: str) -> None:
    assert decode_message(text) is None


def result_of(sources: int, labels: int) -> StageResult:
    values = [0.123456] * labels
    scores = [
        SourceScore(
            source=f"source-number-{i}",
            utterances=2610,
            weighted_f1=0.701234,
            weighted_f1_low=0.681234,
            weighted_f1_high=0.721234,
            strict_weighted_f1=0.701234,
            macro_f1=0.512345,
            accuracy=0.712345,
            unparsable=0.001234,
            label_entropy=0.812345,
            f1_by_label=values,
            predicted_shares=values,
        )
        for i in range(sources)
    ]
    return StageResult(
        stage=Stage.EVALUATE,
        generation=1,
        manifest="s3://bucket/manifest.json",
        manifest_sha256="0" * 64,
        scores=scores,
    )


@pytest.mark.parametrize(
    ("sources", "labels", "scores", "lists"),
    [(2, 7, 2, 2), (9, 20, 9, 1), (16, 28, 12, 1), (16, 64, 10, 1)],
)
def test_a_message_is_cut_to_what_kubernetes_keeps(
    sources: int, labels: int, scores: int, lists: int
) -> None:
    result = result_of(sources, labels)
    text = encode_message(result)
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    decoded = decode_message(text)
    assert isinstance(decoded, StageResult)
    assert decoded.scores[0] == result.scores[0]
    assert len(decoded.scores) == scores
    assert sum(bool(s.f1_by_label) for s in decoded.scores) == lists


def test_figures_of_sets_leave_room_for_the_selection_dataset() -> None:
    plain = result_of(16, 28)
    figures = {"micro_f1": 0.512345, "samples_f1": 0.512345, "jaccard": 0.412345}
    figures["labels_per_answer"] = 1.234567
    by_sets = [score.model_copy(update=figures) for score in plain.scores]
    text = encode_message(plain.model_copy(update={"scores": by_sets}))
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    decoded = decode_message(text)
    assert isinstance(decoded, StageResult)
    assert decoded.scores[0] == by_sets[0]
    assert len(decoded.scores) == 9


def test_expression_leaves_room_for_the_selection_dataset() -> None:
    change = ExpressionChange(generation=123, change=-0.012345, low=-0.112345, high=0.112345)
    expression = ExpressionScore(
        source="s" * 63,
        responses=512,
        dialogues=64,
        as_intended=0.312345,
        as_intended_low=0.272345,
        as_intended_high=0.352345,
        consistency=0.612345,
        diversity=0.712345,
        words=12.123456,
        named=0.012345,
        well_formed=0.912345,
        human=0.512345,
        human_turns=512,
        as_intended_by_label=[0.123456] * 64,
        over_baseline=change,
        over_best=change,
    )
    for sources, labels, left in ((2, 7, 2), (16, 64, 8)):
        result = result_of(sources, labels).model_copy(update={"expression": expression})
        text = encode_message(result)
        assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
        decoded = decode_message(text)
        assert isinstance(decoded, StageResult)
        assert decoded.scores[0] == result.scores[0]
        assert len(decoded.scores) == left
        whole = labels == 7
        cut = expression.model_copy(update={"as_intended_by_label": []})
        assert decoded.expression == (expression if whole else cut)


def test_a_result_that_cannot_be_cut_is_an_error() -> None:
    result = result_of(0, 0).model_copy(update={"metrics": {f"{i:0100}": 0.5 for i in range(64)}})
    with pytest.raises(ValueError, match="over 4096 bytes"):
        encode_message(result)


def test_the_shares_of_the_largest_label_set_fit() -> None:
    """They have no names: 64 names of 64 wide characters alone would take 12 KiB."""
    shares = [1 / 3 + n * 1e-9 for n in range(64)]
    metrics = {str(metric): 123456.0 for metric in CheckMetric}
    check = StageResult(
        stage=Stage.CHECK,
        generation=0,
        manifest="s3://" + "b" * 1300,
        manifest_sha256="0" * 64,
        metrics=metrics,
        label_shares=shares,
    )
    decoded = decode_message(encode_message(check))
    assert decoded == check
