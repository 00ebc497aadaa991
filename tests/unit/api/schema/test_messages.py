"""Termination messages: always within 4 KiB, always read as what they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.results import (
    TERMINATION_MESSAGE_BYTES,
    FailureMessage,
    ShardResult,
    SourceScore,
    StageResult,
    decode_message,
    encode_message,
)
from selfemo_api.stages import STAGE_ORDER, Stage

SHARE = st.floats(0.0, 1.0)
URI = st.text("abcdefghij/-", min_size=1, max_size=250).map(lambda path: f"s3://bucket/{path}")


@st.composite
def results(draw: st.DrawFn, *, sources: int = 16, labels: int = 64) -> StageResult:
    # few figures drawn, repeated up to the length: a result of thousands has no use for more
    lists = st.lists(SHARE, min_size=8, max_size=8).map(lambda few: (few * labels)[:labels])
    scores = [
        SourceScore(
            source=f"source-{index}",
            utterances=draw(st.integers(0, 10**6)),
            f1_by_label=draw(lists),
            predicted_shares=draw(lists),
            weighted_f1_low=draw(st.none() | SHARE),
            **{name: draw(SHARE) for name in FIGURES},
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


FIGURES = (
    "weighted_f1",
    "strict_weighted_f1",
    "macro_f1",
    "accuracy",
    "unparsable",
    "label_entropy",
)


@given(results(sources=2, labels=7))
def test_result_comes_back_whole(result: StageResult) -> None:
    assert decode_message(encode_message(result)) == result


@given(results())
def test_widest_result_keeps_what_the_planner_needs(result: StageResult) -> None:
    text = encode_message(result)
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    heard = decode_message(text)
    assert isinstance(heard, StageResult)
    assert heard.scores[:1] == result.scores[:1]
    assert heard.model_copy(update={"scores": []}) == result.model_copy(update={"scores": []})
    for short, whole in zip(heard.scores, result.scores, strict=False):
        assert short.weighted_f1 == whole.weighted_f1


@given(st.text(max_size=2048), st.sampled_from(["BadInput", "Unavailable", "Internal"]))
def test_any_error_can_be_said(error: str, kind: str) -> None:
    heard = decode_message(encode_message(FailureMessage(error=error, kind=kind)))
    assert isinstance(heard, FailureMessage)
    assert heard.kind == kind
    assert error.startswith(heard.error)


@pytest.mark.parametrize("letter", ["x", "é", "😀", "\x00", '"', "\udc80"])
def test_long_errors_are_cut(letter: str) -> None:
    text = encode_message(FailureMessage.model_construct(error=letter * 2048, kind="Internal"))
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    heard = decode_message(text)
    assert isinstance(heard, FailureMessage)
    assert len(heard.error) > 300


@given(st.integers(0, 999), st.integers(0, 1023))
def test_a_shards_word_is_not_a_stages(generation: int, shard: int) -> None:
    message = ShardResult(stage=Stage.SELF_PLAY, generation=generation, shard=shard)
    assert decode_message(encode_message(message)) == message


@given(st.text(max_size=40) | results().map(encode_message).map(lambda text: text[:-1]))
def test_what_is_none_of_ours_is_none(text: str) -> None:
    assert decode_message(text) is None
