"""What Prometheus is told: right figures, few series, and none that takes the others with it."""

from __future__ import annotations

import copy
import logging
import re
from typing import Any
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.operator.controller.evolved import METRICS, SEVEN, evolved
from tests.unit.operator.planner.simulated_world import result_of

from selfemo_api.dataset_labels import MELD
from selfemo_api.results import decode_message, encode_message
from selfemo_api.spec import RewardSpec
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_jobs.stages.score.score_summary import RoleSummary, ScoreSummary, score_metrics
from selfemo_jobs.stages.selfplay.metrics import self_play_metrics
from selfemo_operator.controller.cache import Cache, object_key
from selfemo_operator.controller.metrics.exposition import MAX_SERIES, Exposition, render_evolution
from selfemo_operator.controller.metrics.http_server import HttpServer, metrics_handler
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from selfemo_operator.controller.metrics.reference import page

Json = dict[str, Any]
Samples = dict[str, dict[tuple[str, ...], float]]


def text_of(*items: Json) -> str:
    cache = Cache()
    for item in items:
        cache.store_evolution(copy.deepcopy(item))
    return OperatorMetrics(cache, lambda: 1.0, lambda: 0).text().decode()


def samples(text: str) -> Samples:
    """Return series by name, by the values of their labels but namespace and name."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("namespace", "name")}
            found.setdefault(sample.name, {})[tuple(labels.values())] = sample.value
    return found


def of(found: Samples, name: str) -> dict[tuple[str, ...], float]:
    return found[f"selfemo_evolution_{name}"]


def test_figures_are_the_status() -> None:
    found = samples(text_of(evolved()))
    assert of(found, "generation") == {(): 2.0}
    assert of(found, "f1_ratio") == {(): 0.4}
    assert of(found, "baseline_f1_ratio") == {(): 0.3}
    assert of(found, "stage") == {(s.value,): float(s is Stage.TRAIN) for s in STAGE_ORDER}
    assert of(found, "phase")[("Running",)] == sum(of(found, "phase").values()) == 1.0
    assert of(found, "condition")[("Progressing", "Running")] == 1.0
    assert of(found, "emotion_f1_ratio") == {("dev", e): 0.4 for e in SEVEN}
    assert of(found, "stage_duration_seconds")[("Train",)] == 12.5
    assert of(found, "stage_attempts_total")[("Score",)] == 4.0
    assert of(found, "stage_failures_total")[("Score", "Failed")] == 2.0
    assert of(found, "generated_tokens_total") == {(): 500_000.0}
    assert of(found, "dropped_candidates")[("balance",)] == 750
    assert of(found, "info") == {("file:///model", "dev", "0123456789ab"): 1.0}


def test_rewards_are_a_histogram() -> None:
    found = samples(text_of(evolved()))
    buckets = of(found, "reward_bucket")
    edges = ["-0.5", "0.0", "0.2", "0.4", "0.6", "0.8", "0.9", "+Inf"]
    assert [edge for (edge,) in buckets] == edges
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets[("+Inf",)] == of(found, "reward_count")[()] == 7200.0
    assert of(found, "reward_sum")[()] == pytest.approx(7200 * 0.55)


def test_figures_do_not_vanish_when_a_generation_begins() -> None:
    before = samples(text_of(evolved(until=(1, Stage.TRAIN))))
    after = samples(text_of(evolved(until=(1, Stage.EVALUATE))))
    assert of(after, "generation") == {(): 2.0}
    assert {n: set(s) for n, s in before.items()} == {n: set(s) for n, s in after.items()}


def test_gpu_seconds_are_by_stage() -> None:
    found = samples(text_of(evolved(training={"gpusPerNode": 4, "nodes": 2})))
    seconds = of(found, "gpu_seconds_total")
    assert (seconds[("Train",)], seconds[("Flywheel",)]) == (8 * 12.5, 0.0)


def test_a_new_evolution_has_a_phase_and_no_figures() -> None:
    item = evolved()
    del item["status"]
    found = samples(text_of(item))
    assert of(found, "phase")[("Pending",)] == 1.0
    assert not found.get("selfemo_evolution_f1_ratio")
    assert of(found, "stage_failures_total")[("Train", "Failed")] == 0.0


@pytest.mark.parametrize("count", [1, 3, 16])
def test_series_are_few(count: int) -> None:
    item = evolved(sources=tuple(f"set-{n}" for n in range(count)))
    chunks = render_evolution(object_key(item), item)
    series = sum(chunk.count("\n") for chunk in chunks)
    left_out = float(chunks[-1].rsplit(maxsplit=1)[1])
    assert series <= MAX_SERIES < 120
    assert (left_out > 0) == (count > 3)


def test_series_go_with_their_evolution() -> None:
    cache = Cache()
    exposition = Exposition(cache)
    item = evolved()
    cache.store_evolution(item)
    exposition.refresh(("team", "demo"))
    assert 'name="demo"' in exposition.text()
    cache.remove_evolution(("team", "demo"))
    exposition.refresh(("team", "demo"))
    assert 'name="demo"' not in exposition.text()


def test_a_change_is_seen_with_and_without_a_pass() -> None:
    cache = Cache()
    exposition = Exposition(cache)
    for version, refresh in ((1, True), (2, False), (3, True)):
        item = evolved(version=version)
        item["status"]["generation"] = version
        cache.store_evolution(item)
        if refresh:
            exposition.refresh(("team", "demo"))
        assert of(samples(exposition.text()), "generation") == {(): float(version)}


ODD: dict[str, Json] = {
    "no spec": {"spec": None},
    "a word for a number": {"status": {"generation": "many"}},
    "a list for a map": {"status": []},
    "conditions without types": {"status": {"conditions": [{}]}},
    "a time that is none": {"status": {"startTime": "yesterday"}},
    "totals of words": {"status": {"stages": ["Score"]}},
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_one_odd_resource_hides_only_itself(change: Json, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache()
    metrics = OperatorMetrics(cache, lambda: 1.0, lambda: 0)
    odd = {**evolved("odd"), **change}
    if not isinstance(odd["status"], dict):
        odd["status"] = [1]
    cache.store_evolution(odd)
    cache.store_evolution(evolved("good"))
    with caplog.at_level(logging.WARNING):
        found = [metrics.text().decode() for _ in range(3)][-1]
        cache.store_evolution({**odd, "metadata": {**odd["metadata"], "resourceVersion": "8"}})
        metrics.text()
    assert 'name="good"' in found
    assert 'name="odd"' not in found
    assert samples(found)["selfemo_operator_unreadable_evolutions"] == {(): 1.0}
    assert len([r for r in caplog.records if "team/odd" in r.message]) == 1
    cache.store_evolution(evolved("odd", version=9))
    mended = metrics.text().decode()
    assert 'name="odd"' in mended
    assert samples(mended)["selfemo_operator_unreadable_evolutions"] == {(): 0.0}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(where=st.sampled_from(["spec", "status"]), what=ANYTHING, data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_a_resource_holds_the_text_can_be_read(
    where: str, what: Any, data: st.DataObject
) -> None:
    item = evolved("odd")
    field = data.draw(st.sampled_from(sorted(item[where])))
    item[where][field] = what
    found = samples(text_of(item, evolved("good")))
    assert of(found, "generation")


def test_labels_are_escaped() -> None:
    item = evolved()
    odd = 'a"b\\c\nd'
    item["spec"]["model"]["uri"] = odd
    ((model, *_),) = of(samples(text_of(item)), "info")
    assert model == odd


def test_every_series_is_documented_and_of_a_known_kind() -> None:
    text = text_of(evolved())
    names = set(re.findall(r"^(selfemo_\w+?)(?:_sum|_count|_bucket)?[{ ]", text, re.MULTILINE))
    told = page()
    assert not {n for n in names if not re.search(f"`{n}(_bucket)?`", told)}
    families = re.findall(r"^# TYPE (selfemo_evolution_\w+) (\w+)$", text, re.MULTILINE)
    assert len(families) == len({name for name, _ in families})
    assert {kind for _, kind in families} == {"gauge", "counter", "histogram"}


def test_made_up_figures_are_those_of_real_stages() -> None:
    """What the metrics read is what score and self-play say; Flywheel's own test says its."""
    role = RoleSummary(candidates=2, rows=2, groups=1, reward=2.0)
    assert set(METRICS[Stage.SCORE]) <= set(
        score_metrics(ScoreSummary(recognizer=role), RewardSpec())
    )
    counts = "rows groups tokens promptTokens finished responder recognizer"
    part = dict.fromkeys(counts.split(), 1)
    part |= dict.fromkeys(("recognizerWellFormed", "responderWellFormed"), 1)
    played = self_play_metrics(
        {"p": {**part, "logprob": -1.0, "distinct": 0.5, "labels": {}}}, MELD
    )
    assert set(METRICS[Stage.SELF_PLAY]) <= set(played)


def test_the_server_answers_on_its_page_alone() -> None:
    server = HttpServer(0, {"/metrics": metrics_handler(lambda: b"up 1\n")})
    server.start()
    try:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
            assert answer.read() == b"up 1\n"
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        with pytest.raises(OSError, match="404"):
            urlopen(f"http://127.0.0.1:{server.port}/", timeout=5)
    finally:
        server.stop()


@pytest.mark.parametrize("stage", [Stage.SCORE, Stage.FLYWHEEL])
def test_figures_fit_into_a_termination_message(stage: Stage) -> None:
    """The longest storage URI there may be, and twice the figures that a stage reports."""
    figures = dict.fromkeys(METRICS[stage], -1234567.123456)
    figures |= {f"another{n}{name}"[:32]: 0.123456 for n, name in enumerate(figures)}
    long = "s3://" + "b" * 1300
    found = result_of(999, stage, folder=long, metrics=figures)
    assert decode_message(encode_message(found)) == found
