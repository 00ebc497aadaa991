"""The metrics of self-play follow from the candidates, not from the parts that hold them."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from selfemo_api.collapse import crossed_indicator
from selfemo_api.metrics import SelfPlayMetric
from selfemo_api.results import StageResult
from selfemo_api.spec import CollapseBounds, Role, SelfPlaySpec
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.schemas import CANDIDATES
from selfemo_jobs.stages.selfplay.metrics import count_part, sampled_share, self_play_metrics

GROUP_SIZE = 4
#: Episodes of a part: those of the smallest `batchPrompts`, of one of 8, and of the default.
PART_SIZES = (1, 8, 128)


def test_one_response_to_everything_is_a_collapse_whatever_a_part_holds() -> None:
    for size in PART_SIZES:
        metrics = metrics_of(lambda _episode, _member: "I do not know what to say.", size)
        assert metrics[SelfPlayMetric.DIVERSITY] == pytest.approx(1 / 512, rel=0.2)
        result = StageResult(
            stage=Stage.SELF_PLAY,
            generation=1,
            manifest="x",
            manifest_sha256="0" * 64,
            metrics=metrics,
        )
        assert crossed_indicator(result, None, CollapseBounds()) is not None


def test_diversity_does_not_depend_on_the_parts_or_the_size_of_the_run() -> None:
    def say(episode: int, member: int) -> str:
        return f"it is {episode % 90} o'clock and {member} minutes"

    small = [metrics_of(say, size)[SelfPlayMetric.DIVERSITY] for size in PART_SIZES]
    assert len(set(small)) == 1
    large = metrics_of(say, 128, episodes=1280)[SelfPlayMetric.DIVERSITY]
    assert large == pytest.approx(small[0], rel=0.2)


def test_a_small_run_is_measured_as_a_whole() -> None:
    metrics = metrics_of(lambda episode, member: f"just {episode} {member}", 2, episodes=4)
    # 16 responses have two bigrams each, of which "just <episode>" occurs for each member
    assert metrics[SelfPlayMetric.DIVERSITY] == (4 + 16) / 32


def test_shards_of_an_earlier_version_have_no_share_in_the_diversity() -> None:
    old = {"distinct": 0.5, "responder": 4, "responderWellFormed": 4}
    counts = {
        "part-00000.parquet": count_part(part_of(lambda _e, _m: "no no no", range(1))),
        "part-00001.parquet": count_part(part_of(lambda _e, _m: "yes", range(1))) | old,
    }
    assert self_play_metrics(counts, [])[SelfPlayMetric.DIVERSITY] == 0.125
    for count in counts.values():
        del count["bigrams"]
    assert SelfPlayMetric.DIVERSITY not in self_play_metrics(counts, [])


def metrics_of(
    say: Callable[[int, int], str], size: int, *, episodes: int = 160
) -> dict[str, float]:
    """Return the metrics of a run in parts of some episodes."""
    settings = SelfPlaySpec(group_size=GROUP_SIZE, roles=[Role.RESPONDER])
    sampled = sampled_share(settings, episodes)
    counts = {
        f"part-{start:05d}.parquet": count_part(
            part_of(say, range(start, min(start + size, episodes))), sampled
        )
        for start in range(0, episodes, size)
    }
    return self_play_metrics(counts, ["joy"])


def part_of(say: Callable[[int, int], str], episodes: range) -> pa.Table:
    """Return responses of some episodes."""
    rows = [
        {
            "group_id": f"g001/demo/d{episode}/0/0/responder",
            "role": Role.RESPONDER.value,
            "member": member,
            "completion": say(episode, member),
            "completion_ids": [1],
            "prompt_ids": [1],
            "logprobs": [-1.0],
            "finished": True,
            "well_formed": True,
            "labels": None,
        }
        for episode in episodes
        for member in range(GROUP_SIZE)
    ]
    empty = dict.fromkeys(CANDIDATES.names)
    return pa.Table.from_pylist([empty | row for row in rows], schema=CANDIDATES)
