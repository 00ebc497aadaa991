"""What was run, gains with paired intervals, fixed and broken answers, and replies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.jobs.report import made_up_answers
from tests.unit.jobs.report.made_up import F1, LABELS, RUN, write_run
from tests.unit.jobs.report.made_up_answers import DIALOGUES, TURNS, is_right

from selfemo_api.contract import GenerationOutcome, RunOutcomes, StageConfig
from selfemo_api.spec import EvolutionSpec, StorageSpec
from selfemo_api.stages import Stage
from selfemo_api.status import Best, Outcome
from selfemo_jobs.errors import BadInput
from selfemo_jobs.evaluation.paired_gain import gain_between
from selfemo_jobs.evaluation.prediction_table import PREDICTIONS
from selfemo_jobs.report.answer_reader import Answers
from selfemo_jobs.report.examples import answer_changes
from selfemo_jobs.report.gains import ShownGain
from selfemo_jobs.report.page import render
from selfemo_jobs.report.report_builder import build_report
from selfemo_jobs.report.run_info import RunInfo, info_of_config
from selfemo_jobs.report.types import ReportData
from selfemo_jobs.report.write import read_run, report_data, report_page
from selfemo_jobs.runtime.run_reader import read_records
from selfemo_jobs.runtime.tables import decode_table, encode_table
from selfemo_jobs.store import Store, join, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(StorageSpec(uri=f"file://{tmp_path}/store"))


@pytest.fixture
def data(store: Store) -> ReportData:
    run = write_run(store, answers=True)
    return report_data(store, read_run(store, run), RunInfo(RUN))


def facts(data: ReportData) -> dict[str, str]:
    return {f.name: " ".join((f.value, *f.items)).strip() for f in data.facts.facts}


def test_what_was_run_follows_from_the_manifests_alone(data: ReportData) -> None:
    shown = facts(data)
    assert shown.pop("machine") is not None  # there are two of them, see below
    assert shown == {
        "model": "file:///models/start (llama, 6 layers, 49.6 million parameters)",
        "labels": "7: neutral surprise fear sadness joy disgust anger",
        "labels read in training": "38 dialogues of train-labeled (353 labeled utterances)",
        "engine": "Transformers",
        "versions": "torch 2.13.0 transformers 5.17.0",
        "stages ran": "2026-11-28 15:33 to 2026-11-29 01:50 UTC, 10 h 17 min",
    }
    machines = [fact.value for fact in data.facts.facts if fact.name == "machine"]
    assert machines == [
        "Some CPU, 16 cores, no GPU (Check, Evaluate, Publish, SelfPlay, Score, Flywheel)",
        "Some CPU, 16 cores, 2 × NVIDIA H100 (Train)",
    ]
    counts = {s.name: (s.use, s.dialogues, s.utterances, s.labeled) for s in data.facts.sources}
    assert counts == {
        "train": ("self-play, without labels", 1000, 9989, None),
        "train-labeled": ("training, with labels", 38, 362, 353),
        "dev": ("evaluation", 114, 1109, 1109),
        "test": ("evaluation", 157, 1658, 1109),
    }


def test_cost_is_the_time_and_the_gpu_hours_of_each_stage(data: ReportData) -> None:
    costs = {cost.stage: (cost.runs, cost.seconds, cost.gpu_hours) for cost in data.facts.costs}
    assert costs["Train"] == (3, 3 * 470.0, pytest.approx(2 * 3 * 470 / 3600))
    assert costs["Check"] == (1, 20.0, 0.0)
    assert data.facts.seconds == sum(seconds for _, seconds, _ in costs.values())
    assert data.facts.gpu_hours == pytest.approx(2 * 3 * 470 / 3600)


def test_unknown_gpus_are_not_counted_as_none(store: Store) -> None:
    records = read_records(store, write_run(store))
    older = [replace(record, gpus=None) for record in records]
    assert build_report(older, RunInfo(RUN)).facts.gpu_hours is None
    assert "unknown" in render(build_report(older, RunInfo(RUN)))


def test_the_spec_adds_recipe_changes_and_seed(
    make_spec: Callable[..., EvolutionSpec], store: Store
) -> None:
    records = read_records(store, write_run(store, (0, Stage.EVALUATE)))
    info = RunInfo(RUN, spec=make_spec(seed=7), changes=("flywheel.keep=0.6",))
    shown = facts(build_report(records, info))
    assert shown["recipe"].endswith("which differs in 1 setting: flywheel.keep=0.6")
    assert shown["seed"] == "7"
    assert shown["labels read in training"].startswith("none;")
    without = facts(build_report(records, replace(info, changes=())))
    assert without["recipe"].endswith(", without a change")


def test_gains_are_those_of_the_stored_answers(data: ReportData) -> None:
    tables = [made_up_answers.answers(LABELS, generation) for generation in range(4)]
    for generation in (1, 2, 3):
        row = data.row(generation)
        assert row is not None
        expected = gain_between(
            tables[0], tables[generation], LABELS, sets=False, resamples=200, seed=1000
        )
        for source in ("dev", "test"):
            assert row.gains[source] == ShownGain(expected.gain, expected.low, expected.high)
    first = data.row(0)
    assert first is not None and first.gains == {}
    assert [row.gains["dev"].direction for row in data.generations[1:]] == [1, 1, 0]


def test_without_stored_answers_the_gain_has_no_interval(store: Store) -> None:
    run = write_run(store, answers=True)
    for info in store.list(run):
        if "/000/evaluate/predictions/" in info.uri:
            Path(info.uri.removeprefix("file://")).unlink()
    data = report_data(store, read_run(store, run), RunInfo(RUN))
    row = data.row(3)
    assert row is not None
    assert row.gains["dev"] == ShownGain(pytest.approx(F1[3] - F1[0]))
    assert data.changes is None


def test_a_difference_on_other_utterances_is_not_a_gain() -> None:
    gain = ShownGain(0.1, other_utterances=True)
    assert str(gain) == "+0.1000 (not a gain: the dataset was changed between the evaluations)"
    assert gain.direction == 0


def test_damaged_answers_are_an_error(store: Store) -> None:
    run = write_run(store, answers=True)
    part = next(i.uri for i in store.list(run) if "/002/evaluate/predictions/dev" in i.uri)
    store.put(part, b"spoilt")
    with pytest.raises(BadInput, match="does not match"):
        report_data(store, read_run(store, run), RunInfo(RUN))


def test_fixed_and_broken_answers_are_counted_and_shown(data: ReportData) -> None:
    changes = data.changes
    assert changes is not None
    places = [(d, t) for d in range(DIALOGUES) for t in range(TURNS)]
    before, after = ({p for p in places if is_right(g, *p)} for g in (0, 3))
    assert changes.fixed_count == len(after - before) > 0
    assert changes.broken_count == len(before - after) > 0
    assert changes.both_right == len(before & after)
    assert changes.both_wrong == len(places) - len(before | after)
    assert sum(row.fixed for row in changes.by_label) == changes.fixed_count
    assert sum(row.utterances for row in changes.by_label) == len(places)
    for examples, expected in ((changes.fixed, after - before), (changes.broken, before - after)):
        shown = {(int(e.dialogue[1:]), e.utterance) for e in examples}
        assert len(shown) == len(examples) == min(6, len(expected))
        assert shown <= expected
    example = changes.fixed[0]
    assert example.before != example.gold == example.after
    assert example.text.startswith(f"Turn {example.utterance} of dialogue")
    assert len(example.context) == min(3, example.utterance)


def test_examples_are_of_several_labels_and_always_the_same(data: ReportData, store: Store) -> None:
    assert data.changes is not None
    assert len({e.gold for e in data.changes.fixed}) == 6
    again = report_data(store, read_run(store, join(store.storage.uri, RUN)), RunInfo(RUN))
    assert again.changes == data.changes


def test_repeated_mistakes_are_those_of_every_generation(data: ReportData) -> None:
    changes = data.changes
    assert changes is not None
    wrong = {
        (d, t)
        for d in range(DIALOGUES)
        for t in range(TURNS)
        if not any(is_right(g, d, t) for g in range(4))
    }
    assert changes.mistakes_count == len(wrong) > 0
    assert {(int(e.dialogue[1:]), e.utterance) for e in changes.mistakes} <= wrong


def test_confident_mistakes_have_the_largest_probabilities(data: ReportData) -> None:
    changes = data.changes
    assert changes is not None
    rows = [
        (0.5 + d / 40 + t / 1000, is_right(changes.generation, d, t), d, t)
        for d in range(DIALOGUES)
        for t in range(TURNS)
    ]
    assert changes.confident_count == sum(p >= 0.9 for p, *_ in rows) > 0
    assert changes.confident_mistakes_count == sum(p >= 0.9 and not r for p, r, *_ in rows) > 0
    shown = [e.probability for e in changes.confident_mistakes]
    assert len(shown) == 6
    assert shown == sorted(shown, key=lambda p: -(p or 0.0))
    assert shown[0] == max(p for p, right, *_ in rows if not right)
    assert max(Counter((e.gold, e.after) for e in changes.confident_mistakes).values()) <= 2
    page = render(data)
    assert 'id="confident-mistakes"' in page
    assert f"{shown[0]:.3f}" in page


def test_a_run_without_stored_probabilities_has_no_confident_mistakes() -> None:
    table = made_up_answers.answers(LABELS, 0)
    old = table.drop_columns(["probability"])
    filled = decode_table(encode_table(old), "file:///old.parquet", PREDICTIONS)
    assert filled["probability"].null_count == table.num_rows
    changes = answer_changes(
        Answers({(0, "dev"): filled, (1, "dev"): filled}, {}), 1, "dev", sets=False
    )
    assert changes is not None
    assert (changes.confident_count, changes.confident_mistakes) == (0, ())


def test_nothing_compares_generation_0_with_itself(store: Store) -> None:
    run = write_run(store, (0, Stage.PUBLISH), answers=True)
    data = report_data(store, read_run(store, run), RunInfo(RUN))
    assert (data.best, data.compared, data.changes) == (0, None, None)
    assert not [sign for sign in data.indicators if "relative" in sign.name]
    page = render(data)
    assert "+0.000" not in page
    assert "gain on dev</dt>" not in page
    assert "F1 change by emotion" not in page


def test_without_a_promotion_the_best_of_the_others_is_compared(store: Store) -> None:
    run = write_run(store, answers=True)
    data = report_data(store, read_run(store, run), RunInfo(RUN, best=0))
    assert (data.best, data.compared) == (0, 3)
    page = render(data)
    assert "gain on dev of generation 3, not promoted" in page
    assert "generation 3 (not promoted)" in page


def test_replies_are_of_the_first_and_the_last_scored_generation(data: ReportData) -> None:
    assert [pair.dialogue for pair in data.replies] == ["meld/d1", "meld/d3", "meld/d5"]
    pair = data.replies[0]
    assert (pair.first.generation, pair.last.generation) == (1, 3)
    assert pair.first.intended == ("joy",)
    assert pair.first.text.startswith("That is wonderful!")
    assert "Replies side by side" in render(data)


def test_one_scored_generation_has_no_replies_side_by_side(store: Store) -> None:
    run = write_run(store, (1, Stage.PUBLISH))
    assert report_data(store, read_run(store, run), RunInfo(RUN)).replies == ()


@pytest.fixture
def publish_config(
    make_spec: Callable[..., EvolutionSpec], make_config: Callable[..., StageConfig], store: Store
) -> StageConfig:
    spec = make_spec(storage={"uri": store.storage.uri}, stopping={"goal": 0.52})
    outcomes = [
        (0, Outcome.BASELINE, "the baseline model"),
        (1, Outcome.PROMOTED, ""),
        (2, Outcome.COLLAPSED, "label entropy is below 0.35"),
    ]
    config = make_config(Stage.PUBLISH, generation=2, spec=spec)
    history = RunOutcomes(
        best=Best(generation=1, f1=F1[1], model_uri="x"),
        generations=[
            GenerationOutcome(generation=g, outcome=o, model_uri="x", message=m)
            for g, o, m in outcomes
        ],
        baseline_uri="x",
        next_policy_uri="x",
        changes=["flywheel.keep=0.6"],
    )
    return config.model_copy(update={"run": RUN, "outcomes": history})


def test_publish_writes_the_page_from_its_configuration(
    store: Store, publish_config: StageConfig
) -> None:
    run = write_run(store, (2, Stage.SCORE), answers=True)
    page = report_page(store, run, info_of_config(publish_config)).decode()
    assert "After generation 2: label entropy is below 0.35" in page
    assert "collapsed</span>" in page
    assert "goal 0.52" in page
    assert "flywheel.keep=0.6" in page
    assert "is not finished" not in page  # a collapsed generation has no further stage
    assert page.encode() == report_page(store, run, info_of_config(publish_config))


def test_an_empty_folder_is_an_error(store: Store) -> None:
    with pytest.raises(BadInput, match="contains no finished stage"):
        report_page(store, join(store.storage.uri, "default/none-1"), RunInfo("default/none-1"))
