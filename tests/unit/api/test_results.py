from __future__ import annotations

import pytest

from selfemo_api.results import (
    TERMINATION_MESSAGE_BYTES,
    SourceScore,
    StageResult,
    decode_message,
    encode_message,
)
from selfemo_api.stages import Stage


def result(sources: int, labels: int) -> StageResult:
    figures = [0.123456] * labels
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
            f1_by_label=figures,
            predicted_shares=figures,
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
    ("sources", "labels", "kept", "lists"),
    [(2, 7, 2, 2), (9, 20, 9, 1), (16, 28, 12, 1), (16, 64, 10, 1)],
)
def test_a_message_is_cut_to_what_kubernetes_keeps(
    sources: int, labels: int, kept: int, lists: int
) -> None:
    whole = result(sources, labels)
    text = encode_message(whole)
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    heard = decode_message(text)
    assert isinstance(heard, StageResult)
    assert heard.scores[0] == whole.scores[0]
    assert len(heard.scores) == kept
    assert sum(bool(s.f1_by_label) for s in heard.scores) == lists


def test_what_cannot_be_cut_is_refused() -> None:
    long = result(0, 0).model_copy(update={"metrics": {f"{i:0100}": 0.5 for i in range(64)}})
    with pytest.raises(ValueError, match="over 4096 bytes"):
        encode_message(long)
