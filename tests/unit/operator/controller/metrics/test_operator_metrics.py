"""The metrics: values, the number of series, and resources that cannot be read."""

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
from tests.unit.operator.controller.evolved import METRICS, SEVEN, evolution_after
from tests.unit.operator.planner.simulated_world import result_of

from selfemo_api.dataset_labels import MELD
from selfemo_api.results import decode_message, encode_message
from selfemo_api.spec import RewardSpec
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_jobs.stages.score.score_summary import RoleSummary, ScoreSummary, score_metrics
from selfemo_jobs.stages.selfplay.metrics import self_play_metrics
from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.caches.evolution_cache import object_key
from selfemo_operator.controller.metrics.exposition import MAX_SERIES, Exposition, render_evolution
from selfemo_operator.controller.metrics.http_server import HttpServer, metrics_handler
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics
from selfemo_operator.controller.metrics.reference import page

Json = dict[str, Any]
Samples = dict[str, dict[tuple[str, ...], float]]


def metrics_text(*items: Json) -> str:
    cache = Cache()
    for item in items:
        cache.store_evolution(copy.deepcopy(item))
    return OperatorMetrics(cache, lambda: 1.0, lambda: 0).text().decode()


def samples(text: str) -> Samples:
    """Return the value of each series by its name and the values of its own labels."""
    values: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("namespace", "name")}
            values.setdefault(sample.name, {})[tuple(labels.values())] = sample.value
    return values


def series_of(values: Samples, name: str) -> dict[tuple[str, ...], float]:
    return values[f"selfemo_evolution_{name}"]


def test_values_are_those_of_the_status() -> None:
    values = samples(metrics_text(evolution_after()))
    assert series_of(values, "generation") == {(): 2.0}
    assert series_of(values, "f1_ratio") == {(): 0.4}
    assert series_of(values, "baseline_f1_ratio") == {(): 0.3}
    assert series_of(values, "stage") == {(s.value,): float(s is Stage.TRAIN) for s in STAGE_ORDER}
    assert (
        series_of(values, "phase")[("Running",)] == sum(series_of(values, "phase").values()) == 1.0
    )
    assert series_of(values, "condition")[("Progressing", "Running")] == 1.0
    assert series_of(values, "emotion_f1_ratio") == {("dev", e): 0.4 for e in SEVEN}
    assert series_of(values, "stage_duration_seconds")[("Train",)] == 12.5
    assert series_of(values, "stage_attempts_total")[("Score",)] == 4.0
    assert series_of(values, "stage_failures_total")[("Score", "Failed")] == 2.0
    assert series_of(values, "generated_tokens_total") == {(): 500_000.0}
    assert series_of(values, "dropped_candidates")[("balance",)] == 750
    folder = "s3://bucket/runs/team/demo-01234567"
    assert series_of(values, "info") == {("file:///model", "dev", "0123456789ab", folder): 1.0}


def test_figures_of_the_last_self_play_and_training_are_there() -> None:
    values = samples(metrics_text(evolution_after(until=(1, Stage.TRAIN))))
    expected = {
        "completion_tokens_mean": 250_000 / 8000,
        "finished_completions_ratio": 0.97,
        "train_loss": 0.031,
        "train_loss_mean": 0.04,
        "train_kl": 0.002,
        "train_clip_low_ratio": 0.01,
        "train_clip_high_ratio": 0.02,
        "train_grad_norm": 0.8,
        "train_entropy": 1.4,
        "train_importance_mean": 0.99,
        "train_imitation": 0.9,
    }
    assert {name: series_of(values, name) for name in expected} == {
        name: {(): value} for name, value in expected.items()
    }


def test_a_training_without_rows_has_no_figures() -> None:
    item = evolution_after()
    for totals in item["status"]["stages"]:
        totals["metrics"] = {"steps": 0.0}
    values = samples(metrics_text(item))
    assert not [name for name in values if name.startswith("selfemo_evolution_train_")]
    assert "selfemo_evolution_completion_tokens_mean" not in values


def test_the_evaluated_generation_changes_with_the_scores() -> None:
    for until, generation, evaluated in (
        ((0, Stage.EVALUATE), 1.0, 0.0),
        ((1, Stage.TRAIN), 1.0, 0.0),
        ((1, Stage.EVALUATE), 1.0, 1.0),
        ((2, Stage.SCORE), 2.0, 1.0),
    ):
        values = samples(metrics_text(evolution_after(until=until)))
        assert series_of(values, "generation") == {(): generation}
        assert series_of(values, "evaluated_generation") == {(): evaluated}


def test_figures_of_label_sets_are_there_for_the_datasets_that_have_them() -> None:
    item = evolution_after(sources=("dev", "sets"))
    names = ("micro_f1_ratio", "samples_f1_ratio", "jaccard_ratio", "labels_per_answer")
    before = samples(metrics_text(item))
    assert not any(f"selfemo_evolution_{name}" in before for name in names)
    figures = {"microF1": 0.61, "samplesF1": 0.62, "jaccard": 0.53, "labelsPerAnswer": 1.4}
    for record in item["status"]["history"]:
        record["scores"][1] |= figures
    values = samples(metrics_text(item))
    for name, value in zip(names, figures.values(), strict=True):
        assert series_of(values, name) == {("sets",): value}


def test_figures_of_expression_are_there_where_the_responder_plays() -> None:
    item = evolution_after(until=(2, Stage.EVALUATE))
    values = samples(metrics_text(item))
    figures = {
        "ratio": 0.4,
        "low_ratio": 0.35,
        "high_ratio": 0.45,
        "human_ratio": 0.55,
        "gain_ratio": 0.1,
        "gain_low_ratio": 0.06,
        "gain_high_ratio": 0.14,
        "gain_over_best_ratio": 0.05,
        "consistency_ratio": 0.62,
        "diversity_ratio": 0.71,
        "words_mean": 9.5,
        "named_ratio": 0.04,
    }
    assert {name: series_of(values, f"expression_{name}") for name in figures} == {
        name: {(): value} for name, value in figures.items()
    }
    assert series_of(values, "expression_emotion_ratio") == {(e,): 0.4 for e in SEVEN}
    for record in item["status"]["history"]:
        del record["expression"]
    names = samples(metrics_text(item))
    assert not [name for name in names if name.startswith("selfemo_evolution_expression_")]


def test_rewards_are_a_histogram() -> None:
    values = samples(metrics_text(evolution_after()))
    buckets = series_of(values, "reward_bucket")
    edges = ["-0.5", "0.0", "0.2", "0.4", "0.6", "0.8", "0.9", "+Inf"]
    assert [edge for (edge,) in buckets] == edges
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets[("+Inf",)] == series_of(values, "reward_count")[()] == 7200.0
    assert series_of(values, "reward_sum")[()] == pytest.approx(7200 * 0.55)


def test_values_stay_when_a_generation_starts() -> None:
    # generations 0 and 1 have fewer changes of expression: there is less to compare with
    before = samples(metrics_text(evolution_after(until=(3, Stage.TRAIN))))
    after = samples(metrics_text(evolution_after(until=(3, Stage.PUBLISH))))
    assert series_of(after, "generation") == {(): 4.0}
    assert {n: set(s) for n, s in before.items()} == {n: set(s) for n, s in after.items()}


def test_gpu_seconds_are_by_stage() -> None:
    values = samples(metrics_text(evolution_after(resources={"gpusPerNode": 4, "nodes": 2})))
    seconds = series_of(values, "gpu_seconds_total")
    assert (seconds[("Train",)], seconds[("WarmStart",)]) == (8 * 12.5, 12.5)
    assert ("Flywheel",) not in seconds, "it has no GPUs"


def test_a_new_evolution_has_a_phase_and_no_scores() -> None:
    item = evolution_after()
    del item["status"]
    values = samples(metrics_text(item))
    assert series_of(values, "phase")[("Pending",)] == 1.0
    assert not values.get("selfemo_evolution_f1_ratio")
    assert series_of(values, "stage_failures_total")[("Train", "Failed")] == 0.0


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_the_number_of_series_is_limited(count: int) -> None:
    item = evolution_after(sources=tuple(f"set-{n}" for n in range(count)))
    chunks = render_evolution(object_key(item), item)
    series = sum(chunk.count(b"\n") for chunk in chunks)
    left_out = float(chunks[-1].rsplit(maxsplit=1)[1])
    assert series <= MAX_SERIES == 150
    assert (left_out > 0) == (count > 2)
    if count == 3:
        # generation 1 has no `expression_gain_over_best_ratio`: its best one is generation 0
        assert left_out == 10, "those of Check, WarmStart and Publish took their place"


def test_series_are_removed_with_their_evolution() -> None:
    cache = Cache()
    exposition = Exposition(cache)
    item = evolution_after()
    cache.store_evolution(item)
    exposition.refresh(("team", "demo"))
    assert 'name="demo"' in exposition.text()
    cache.remove_evolution(("team", "demo"))
    exposition.refresh(("team", "demo"))
    assert 'name="demo"' not in exposition.text()


def test_a_change_is_rendered_with_and_without_a_reconcile() -> None:
    cache = Cache()
    exposition = Exposition(cache)
    for version, refresh in ((1, True), (2, False), (3, True)):
        item = evolution_after(version=version)
        item["status"]["generation"] = version
        cache.store_evolution(item)
        if refresh:
            exposition.refresh(("team", "demo"))
        assert series_of(samples(exposition.text()), "generation") == {(): float(version)}


UNREADABLE: dict[str, Json] = {
    "no spec": {"spec": None},
    "a text instead of a number": {"status": {"generation": "many"}},
    "a list instead of a map": {"status": []},
    "conditions without types": {"status": {"conditions": [{}]}},
    "an invalid time": {"status": {"startTime": "yesterday"}},
    "totals of texts": {"status": {"stages": ["Score"]}},
}


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_resource_hides_only_itself(
    change: Json, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache()
    metrics = OperatorMetrics(cache, lambda: 1.0, lambda: 0)
    unreadable = {**evolution_after("unreadable"), **change}
    if not isinstance(unreadable["status"], dict):
        unreadable["status"] = [1]
    cache.store_evolution(unreadable)
    cache.store_evolution(evolution_after("good"))
    with caplog.at_level(logging.WARNING):
        text = [metrics.text().decode() for _ in range(3)][-1]
        cache.store_evolution(
            {**unreadable, "metadata": {**unreadable["metadata"], "resourceVersion": "8"}}
        )
        metrics.text()
    assert 'name="good"' in text
    assert 'name="unreadable"' not in text
    assert samples(text)["selfemo_operator_unreadable_evolutions"] == {(): 1.0}
    assert len([r for r in caplog.records if "team/unreadable" in r.message]) == 1
    cache.store_evolution(evolution_after("unreadable", version=9))
    fixed = metrics.text().decode()
    assert 'name="unreadable"' in fixed
    assert samples(fixed)["selfemo_operator_unreadable_evolutions"] == {(): 0.0}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(where=st.sampled_from(["spec", "status"]), what=ANYTHING, data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_with_any_resource_the_text_can_be_parsed(
    where: str, what: Any, data: st.DataObject
) -> None:
    item = evolution_after("unreadable")
    field = data.draw(st.sampled_from(sorted(item[where])))
    item[where][field] = what
    values = samples(metrics_text(item, evolution_after("good")))
    assert series_of(values, "generation")


def test_labels_are_escaped() -> None:
    item = evolution_after()
    uri = 'a"b\\c\nd'
    item["spec"]["model"]["uri"] = uri
    ((model, *_),) = series_of(samples(metrics_text(item)), "info")
    assert model == uri


def test_every_series_is_documented_and_has_a_known_type() -> None:
    text = metrics_text(evolution_after())
    names = set(re.findall(r"^(selfemo_\w+?)(?:_sum|_count|_bucket)?[{ ]", text, re.MULTILINE))
    reference = page()
    assert not {n for n in names if not re.search(f"`{n}(_bucket)?`", reference)}
    families = re.findall(r"^# TYPE (selfemo_evolution_\w+) (\w+)$", text, re.MULTILINE)
    assert len(families) == len({name for name, _ in families})
    assert {kind for _, kind in families} == {"gauge", "counter", "histogram"}


def test_the_metrics_of_the_tests_are_those_of_real_stages() -> None:
    """The metrics read names that the stages report; the flywheel's own test checks its names."""
    role = RoleSummary(candidates=2, rows=2, groups=1, reward=2.0)
    assert set(METRICS[Stage.SCORE]) <= set(
        score_metrics(ScoreSummary(recognizer=role), RewardSpec())
    )
    counts = "rows groups tokens promptTokens finished responder recognizer"
    part = dict.fromkeys(counts.split(), 1)
    part |= dict.fromkeys(("recognizerWellFormed", "responderWellFormed"), 1)
    played = self_play_metrics(
        {"p": {**part, "logprob": -1.0, "bigrams": 1, "bigramHashes": "0" * 8, "labels": {}}}, MELD
    )
    assert set(METRICS[Stage.SELF_PLAY]) <= set(played)


def test_the_server_responds_on_its_path_only() -> None:
    server = HttpServer(0, {"/metrics": metrics_handler(lambda: [b"up 1\n"])})
    server.start()
    try:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as response:
            assert response.read() == b"up 1\n"
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        with pytest.raises(OSError, match="404"):
            urlopen(f"http://127.0.0.1:{server.port}/", timeout=5)
    finally:
        server.stop()


@pytest.mark.parametrize("stage", [Stage.SCORE, Stage.FLYWHEEL])
def test_metrics_fit_into_a_termination_message(stage: Stage) -> None:
    """With the longest storage URI, and twice the metrics that a stage reports."""
    metrics = dict.fromkeys(METRICS[stage], -1234567.123456)
    metrics |= {f"another{n}{name}"[:32]: 0.123456 for n, name in enumerate(metrics)}
    long = "s3://" + "b" * 1300
    result = result_of(999, stage, folder=long, metrics=metrics)
    assert decode_message(encode_message(result)) == result


def test_the_operators_namespace_stands_for_all() -> None:
    """Prometheus would drop an empty label, and the alert would have no namespace."""
    metrics = OperatorMetrics(
        Cache(),
        lambda: 1.0,
        lambda: 0,
        problems=lambda: {"": "403"},
        own_namespace="selfemo-system",
    )
    text = metrics.text().decode()
    assert 'selfemo_operator_namespace_watched{namespace="selfemo-system"} 0.0' in text
    assert 'namespace=""' not in text
