from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from tests.unit.study.made_up import AFTER, DOCUMENT, MORE, finish, study, write_data

from selfemo_api.spec import EvolutionSpec, View
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_folder import model_sha256
from selfemo_jobs.runtime.manifest import MANIFEST
from selfemo_jobs.stages.warmstart.options import TrainingOptions
from selfemo_jobs.store.hashing import file_sha256
from selfemo_study.baselines import answer_table, tfidf_model
from selfemo_study.control_rows import (
    best_model,
    gold_labels,
    labeled_lines,
    majority_votes,
    stored_self_play,
    utterances_per_step,
)
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.evolution_rows import starting_model
from selfemo_study.on_policy_worker import answer_ends, rewards
from selfemo_study.row_code import note_code
from selfemo_study.row_record import begin_row
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import StudyError
from selfemo_study.study_folders import StudyFolders
from selfemo_study.supervised_training import SupervisedTraining
from selfemo_study.worker_rows import checkpoint_steps

LABELS = ["neutral", "joy", "anger"]


def candidates(*rows: tuple[int, str]) -> pa.Table:
    return pa.table(
        {
            "source": ["s"] * len(rows),
            "dialogue_id": ["d"] * len(rows),
            "utterance": [utterance for utterance, _ in rows],
            "completion": [text for _, text in rows],
        }
    )


def test_the_most_votes_win() -> None:
    completions = [(0, " joy"), (0, " anger"), (0, " joy"), (1, " anger, joy"), (1, "mumble")]
    found = majority_votes(candidates(*completions), LABELS)
    assert found == {("s", "d", 0): "joy", ("s", "d", 1): "anger"}


def test_equals_are_settled_by_the_order_of_the_labels() -> None:
    for order in ((" anger", " joy"), (" joy", " anger")):
        found = majority_votes(candidates(*((0, text) for text in order)), LABELS)
        assert found == {("s", "d", 0): "joy"}


def test_an_utterance_that_no_candidate_names_has_no_vote() -> None:
    assert majority_votes(candidates((0, "mumble"), (0, "")), LABELS) == {}


def test_votes_are_the_only_labels() -> None:
    turns = (Utterance("Ann", "one", ("anger",)), Utterance("Bo", "two"), Utterance("Ann", "three"))
    dialogues = [Dialogue("d", turns), Dialogue("other", turns[:1])]
    lines = [json.loads(x) for x in labeled_lines("s", dialogues, {("s", "d", 1): "joy"})]
    assert lines == [
        {
            "id": "s/d",
            "turns": [
                {"speaker": "Ann", "text": "one"},
                {"speaker": "Bo", "text": "two", "labels": ["joy"]},
                {"speaker": "Ann", "text": "three"},
            ],
        }
    ]


def test_labels_that_may_be_read_stand_for_votes() -> None:
    turns = (Utterance("Ann", "one", ("anger", "joy")), Utterance("Bo", "two"))
    known = gold_labels("s", [Dialogue("d", turns)])
    assert known == {("s", "d", 0): "anger"}
    (line,) = labeled_lines("s", [Dialogue("d", turns)], known)
    assert json.loads(line)["turns"][0]["labels"] == ["anger"]


@pytest.mark.parametrize(("imitation", "utterances"), [(0.0, 16), (1.0, 12)])
def test_a_control_reads_as_many_utterances_in_a_step(
    make_spec: Callable[..., EvolutionSpec], imitation: float, utterances: int
) -> None:
    training = {"batchSize": 48, "microBatchSize": 48, "imitation": imitation}
    spec = make_spec(selfPlay={"groupSize": 3}, training=training)
    assert utterances_per_step(spec) == utterances


def test_words_are_learned_and_answers_are_as_the_stage_writes_them() -> None:
    texts = ["what a lovely day", "lovely lovely", "I hate this", "hate it so much"] * 3
    model = tfidf_model(10.0).fit(texts, ["joy", "joy", "anger", "anger"] * 3)
    turns = (Utterance("Ann", "lovely", ("joy",)), Utterance("Bo", "unlabeled"))
    hated = Dialogue("b", (Utterance("Bo", "I hate it", ("anger",)),))
    table = answer_table([Dialogue("a", turns), hated], model.predict)
    assert table["predicted"].to_pylist() == [["joy"], ["anger"]] == table["gold"].to_pylist()
    assert table["utterance"].to_pylist() == [0, 0]


def test_on_policy_rewards_are_the_products(make_spec: Callable[..., EvolutionSpec]) -> None:
    spec = make_spec(
        dataset={"labels": LABELS}, selfPlay={"groupSize": 2}, reward={"judge": {"samples": 2}}
    )
    read = [["joy"], ["joy"]]
    completions = [" joy\nand more", " joy", " joy", " anger", "mumble", "mumble"]
    nothing = [[], []]
    readings = [read, read, read, read, nothing, nothing]
    none: list[list[str]] = [[]] * 6
    found = rewards(completions, [True] * 6, readings, none, ["\n"], spec)
    weights = spec.reward.weights
    full = weights.alignment + weights.consistency + weights.format
    assert found[:2] == pytest.approx([full, full])  # what comes after the stop is not read
    assert found[2] > found[3] > 0
    assert found[4:] == [0.0, 0.0]  # no vote: no group has an advantage
    cut_off = rewards(completions[:2], [False, True], readings[:2], none[:2], ["\n"], spec)
    assert cut_off[0] == pytest.approx(full - weights.format)
    known = rewards(completions[2:], [True] * 4, readings[2:], [["anger"]] * 4, ["\n"], spec)
    assert known[1] > known[0]  # gold labels count more than the vote


def test_an_on_policy_answer_ends_where_the_engines_end_it(
    make_spec: Callable[..., EvolutionSpec], tiny_model: Path, tmp_path: Path
) -> None:
    """A base model has a chat template, and an end token that ends no turn."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_model, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id}))
    ends = TransformersEngine(folder, TransformersArgs(), max_model_len=64).ends
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in ends
    assert ends == {*answer_ends(folder, tokenizer, make_spec(model={"prompts": "chat-v1"}))}
    compact = answer_ends(folder, tokenizer, make_spec(model={"prompts": "compact-v1"}))
    line_breaks = {*compact} - ends
    assert line_breaks, "the recognizer's stop text"
    assert all("\n" in tokenizer.decode([token]) for token in line_breaks)


def test_a_training_is_known_again_by_its_note(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("model", "output", "source")}
    paths["source"].write_text("{}")
    paths["model"].mkdir()
    (paths["model"] / "config.json").write_text("{}")
    folders = StudyFolders(tmp_path)
    work = RowTask(study(), study().row("main"), 1, folders, DataVolumes.of({}, folders))
    options = TrainingOptions(
        steps=1, batch_size=1, learning_rate=1e-3, responder_share=0.1, freeze_embeddings=True,
        train_layers=1, views=[View(past=1), View(future=1)],
    )  # fmt: skip
    training = SupervisedTraining(**paths, format="JSONL", dialogues=1, options=options, seed=1)
    settings = training.settings(work.spec)
    assert json.loads(json.dumps(settings)) == settings == {
        "model": "model", "modelSha256": model_sha256(paths["model"]),
        "output": "output", "source": file_sha256(paths["source"]),
        "labels": work.spec.dataset.labels, "prompts": work.spec.model.prompts,
        "past": work.spec.dataset.context.past,
        "maxPromptTokens": work.spec.model.max_prompt_tokens,
        "format": "JSONL",
        "dialogues": 1, "steps": 1, "batch_size": 1, "learning_rate": 1e-3,
        "responder_share": 0.1, "freeze_embeddings": True, "train_layers": 1,
        "precision": "Float32", "views": ["1,0", "0,1"], "seed": 1,
    }  # fmt: skip


def test_a_model_is_kept_at_the_last_step() -> None:
    assert checkpoint_steps(12) == [2, 4, 6, 8, 10, 12]
    assert checkpoint_steps(4) == [1, 2, 3, 4]
    assert checkpoint_steps(1) == [1]


def test_an_evolution_after_a_control_begins_with_its_model(tmp_path: Path) -> None:
    made, folders = study(rows=[*DOCUMENT["rows"], AFTER, MORE]), StudyFolders(tmp_path)
    after, more = (
        RowTask(made, made.row(name), 1, folders, DataVolumes.of({}, folders))
        for name in ("after-more", "more")
    )
    with pytest.raises(StudyError, match="row more, seed 1 has no model here"):
        starting_model(after)
    model = more.folder.path / "models" / "rate-0.0001"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    answers = {(0, "dev"): 1, (0, "test"): 1, (1, "dev"): 2, (1, "test"): 2}
    finish(made, folders, "more", 1, answers, ["Baseline", "Control"], best=1)
    copied = folders.models / "more-seed-1"
    assert starting_model(after) == starting_model(after) == copied
    assert (copied / "config.json").read_text() == "{}"
    (folders.models / "more-seed-1.json").unlink()
    with pytest.raises(StudyError, match="more-seed-1 has no record of what it was made from"):
        starting_model(after)
    shutil.rmtree(copied)
    assert starting_model(after) == copied
    # the row is run again: it trained another model
    (model / "config.json").write_text('{"trained": "again"}')
    finish(made, folders, "more", 1, answers, ["Baseline", "Control"], best=1, steps=5)
    with pytest.raises(StudyError, match=r"made with other settings \(result\): delete the folder"):
        starting_model(after)
    shutil.rmtree(copied)
    assert (starting_model(after) / "config.json").read_text() == '{"trained": "again"}'


@pytest.mark.parametrize(("roles", "taken"), [(["Recognizer"], True), (None, False)])
def test_the_evolutions_first_play_is_taken_for_the_votes(
    tmp_path: Path, roles: list[str] | None, *, taken: bool
) -> None:
    spec = DOCUMENT["spec"] if roles is None else {**DOCUMENT["spec"], "selfPlay": {"roles": roles}}
    made, folders = study(spec=spec), StudyFolders(tmp_path)
    task = RowTask(made, made.row("majority"), 1, folders, write_data(tmp_path))
    assert stored_self_play(task, 1) is None
    main = made.row("main")
    begin_row(dataclasses.replace(task, row=main), None)
    run = folders.run(made, main, 1)
    for generation in (1, 2):
        folder = run / stage_prefix(generation, Stage.SELF_PLAY)
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text("{}")
    assert stored_self_play(task, 1) is None, "its code is not noted"
    note_code(folders.row(main, 1).path)
    assert stored_self_play(task, 1) == (run / stage_prefix(1, Stage.SELF_PLAY) if taken else None)
    assert stored_self_play(task, 2) is None  # of generation 1's model


@pytest.mark.parametrize("best", [0, 2])
def test_a_control_may_continue_with_the_best_model_of_an_evolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    last = {**MORE, "name": "gold-last", "after": "main"}
    made, folders = study(rows=[*DOCUMENT["rows"], last]), StudyFolders(tmp_path)
    task = RowTask(made, made.row("gold-last"), 1, folders, DataVolumes.of({}, folders))
    monkeypatch.setattr(RowTask, "baseline_model", lambda _: tmp_path / "generation-0")
    with pytest.raises(StudyError, match="row main, seed 1 has no model here: run `--rows main"):
        best_model(task, "main")
    answers = {(g, split): 1 for g in (0, 1, 2) for split in ("dev", "test")}
    finish(made, folders, "main", 1, answers, ["Baseline", "Promoted", "Promoted"], best=best)
    if best == 0:
        assert best_model(task, "main") == tmp_path / "generation-0"
        return
    with pytest.raises(StudyError, match="row main, seed 1 has no model here"):
        best_model(task, "main")
    train = folders.run(made, made.row("main"), 1) / stage_prefix(2, Stage.TRAIN)
    (train / "model-1").mkdir(parents=True)
    (train / MANIFEST).write_text('{"model": "model-1"}')
    assert best_model(task, "main") == (train / "model-1").absolute()
