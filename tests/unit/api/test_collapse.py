"""Collapse indicators, and the divergence of two distributions of labels."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import recorded

from selfemo_api.collapse import crossed_indicator, divergence, label_indicators, stage_indicators
from selfemo_api.metrics import ScoreMetric, SelfPlayMetric
from selfemo_api.results import SourceScore, StageResult
from selfemo_api.spec import CollapseBounds
from selfemo_api.stages import Stage

pairs = st.integers(2, 8).flatmap(
    lambda n: st.tuples(
        *[st.lists(st.integers(0, 1000), min_size=n, max_size=n).filter(any)] * 2,
        st.permutations(range(n)),
    )
)


def test_divergence_by_hand() -> None:
    assert divergence([1.0, 0.0], [0.0, 1.0]) == pytest.approx(1.0)
    # middle (3/4, 1/4): (log2(4/3) + 1/2 log2(2/3) + 1/2 log2(2)) / 2
    assert divergence([1.0, 0.0], [0.5, 0.5]) == pytest.approx(0.3112781244591328)


@given(pairs)
def test_divergence_is_bounded_symmetric_and_independent_of_order(
    drawn: tuple[list[int], list[int], list[int]],
) -> None:
    p, q = ([count / sum(counts) for count in counts] for counts in drawn[:2])
    order = drawn[2]
    value = divergence(p, q)
    assert 0.0 <= value <= 1.0
    assert divergence(p, p) == 0.0
    assert value == pytest.approx(divergence(q, p), abs=1e-12)
    moved = divergence([p[i] for i in order], [q[i] for i in order])
    assert value == pytest.approx(moved, abs=1e-12)


@pytest.mark.parametrize("stage", [Stage.SELF_PLAY, Stage.SCORE])
def test_the_metrics_of_a_stage_are_compared_with_their_bound(stage: Stage) -> None:
    manifests = sorted(recorded.STORAGE.glob(f"**/{stage.slug}/manifest.json"))
    assert len(manifests) == 5
    for path in manifests:
        metrics = json.loads(path.read_bytes())["metrics"]
        (indicator,) = stage_indicators(stage, metrics, CollapseBounds())
        assert indicator.value == metrics[indicator_of(stage)]
        assert not indicator.crossed


@pytest.mark.parametrize(
    ("stage", "value", "sentence"),
    [
        (Stage.SELF_PLAY, 0.019, "response diversity is 0.019, below 0.02"),
        (Stage.SCORE, 0.981, "the fraction of groups without variance is 0.981, above 0.98"),
    ],
)
def test_a_crossed_bound_is_a_sentence(stage: Stage, value: float, sentence: str) -> None:
    (indicator,) = stage_indicators(stage, {indicator_of(stage): value}, CollapseBounds())
    assert indicator.crossed
    assert str(indicator) == sentence


@pytest.mark.parametrize(("stage", "value"), [(Stage.SELF_PLAY, 0.0), (Stage.SCORE, 1.0)])
def test_a_bound_at_the_end_of_its_range_is_never_crossed(stage: Stage, value: float) -> None:
    bounds = CollapseBounds(min_diversity=0.0, max_zero_variance=1.0)
    (indicator,) = stage_indicators(stage, {indicator_of(stage): value}, bounds)
    assert not indicator.crossed


def test_a_dead_responder_is_not_hidden_by_the_recognizer() -> None:
    metrics = {
        ScoreMetric.ZERO_VARIANCE_SHARE: 0.6,
        ScoreMetric.ZERO_VARIANCE_SHARE_RECOGNIZER: 0.5,
        ScoreMetric.ZERO_VARIANCE_SHARE_RESPONDER: 1.0,
    }
    for imitation in (False, True):
        recognizer, responder = stage_indicators(
            Stage.SCORE, metrics, CollapseBounds(), imitation=imitation
        )
        assert (recognizer.value, recognizer.crossed) == (0.5, False)
        assert (responder.value, responder.crossed) == (1.0, True)


def test_unanimous_groups_that_are_imitated_are_shown_and_do_not_count() -> None:
    metrics = {
        ScoreMetric.ZERO_VARIANCE_SHARE: 0.99,
        ScoreMetric.ZERO_VARIANCE_SHARE_RECOGNIZER: 0.99,
    }
    indicators = {
        imitation: stage_indicators(Stage.SCORE, metrics, CollapseBounds(), imitation=imitation)
        for imitation in (False, True)
    }
    assert [[(s.value, s.crossed) for s in each] for each in indicators.values()] == [
        [(0.99, True)],
        [(0.99, False)],
    ]


def test_imitation_does_not_help_if_no_group_is_left() -> None:
    metrics = {ScoreMetric.ZERO_VARIANCE_SHARE: 1.0}
    (indicator,) = stage_indicators(Stage.SCORE, metrics, CollapseBounds(), imitation=True)
    assert indicator.crossed


#: The counts of the labels in MELD's test file, and shares that name one label or some.
TRUE = [count / 2610 for count in (1256, 281, 50, 208, 402, 68, 345)]
ONE_LABEL, MOSTLY_JOY = [1.0, 0, 0, 0, 0, 0, 0], [0.02, 0.02, 0, 0.02, 0.9, 0.02, 0.02]


@pytest.mark.parametrize(("baseline", "value"), [(ONE_LABEL, 0.326), (MOSTLY_JOY, 0.482)])
def test_a_generation_that_corrects_a_skewed_baseline_has_not_collapsed(
    baseline: list[float], value: float
) -> None:
    before, after, bounds = scored(baseline), scored(TRUE), CollapseBounds()
    indicator = label_indicators(after, before, bounds, improved=True)[-1]
    assert (round(indicator.value, 3), indicator.bound, indicator.crossed) == (value, 0.3, False)
    result = evaluated(after)
    assert crossed_indicator(result, before, bounds, improved=True) is None
    assert crossed_indicator(result, before, bounds) == str(indicator)


def test_entropy_is_not_compared_with_that_of_a_baseline_that_names_one_label() -> None:
    (away,) = label_indicators(scored(TRUE), scored(ONE_LABEL), CollapseBounds())
    assert not away.falls


@pytest.mark.parametrize("improved", [False, True])
def test_fewer_labels_are_a_collapse_whatever_f1_is(improved: bool) -> None:
    before, after = scored(TRUE), scored(MOSTLY_JOY)
    entropy, away = label_indicators(
        after, before, CollapseBounds(min_entropy=0.1), improved=improved
    )
    assert (entropy.crossed, away.crossed) == (False, True)
    message = crossed_indicator(evaluated(after), before, CollapseBounds(), improved=improved)
    assert message == f"label entropy relative to the baseline's is {entropy.value:.3f}, below 0.35"


def scored(shares: list[float]) -> SourceScore:
    """Return a score whose predictions have these shares."""
    entropy = -sum(share * math.log(share, 7) for share in shares if share)
    figures = dict.fromkeys(("weighted_f1", "strict_weighted_f1", "macro_f1", "accuracy"), 0.3)
    return SourceScore(
        source="dev",
        utterances=2610,
        unparsable=0.0,
        label_entropy=abs(entropy),
        predicted_shares=shares,
        **figures,
    )


def evaluated(score: SourceScore) -> StageResult:
    return StageResult(
        stage=Stage.EVALUATE, generation=1, manifest="x", manifest_sha256="0" * 64, scores=[score]
    )


def indicator_of(stage: Stage) -> str:
    return {
        Stage.SELF_PLAY: SelfPlayMetric.DIVERSITY,
        Stage.SCORE: ScoreMetric.ZERO_VARIANCE_SHARE,
    }[stage]
