"""The recognizer: labels of the model's answers, and exact probabilities."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from tests.support.scored_models import plain_logprob
from tests.unit.jobs.inference.conftest import LABELS
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfemo_api.model_description import ModelDescription
from selfemo_api.spec import Engine, MultiLabel
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.engines.interface import Completion
from selfemo_jobs.errors import BadInput
from selfemo_jobs.inference import LoadedModel, Prediction, Recognizer, recognizer
from selfemo_jobs.models.model_description import prompt_set_of_description

Describe = Callable[..., ModelDescription]


@pytest.fixture
def plain(sharp_model: Path, describe: Describe) -> Iterator[Recognizer]:
    with Recognizer(sharp_model, describe()) as loaded:
        yield loaded


def brute_force(
    folder: Path, description: ModelDescription, dialogue: Dialogue, utterance: int
) -> dict[str, float]:
    """Return the probabilities of one turn: one forward pass of the plain model for each label."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts, turns = prompt_set_of_description(description), dialogue.turns
    shown = turns[max(0, utterance - 2) : utterance]
    prompt = prompts.encode(
        tokenizer,
        prompts.recognizer_prompt(
            shown,
            turns[utterance].speaker,
            turns[utterance].text,
            LABELS,
            turns[utterance + 1 : utterance + 2],
        ),
    )
    answers = [
        prompts.encode_completion(tokenizer, prompts.recognizer_text([label])) for label in LABELS
    ]
    assert all((answer[-1] == tokenizer.eos_token_id) == prompts.chat for answer in answers)
    weights = [math.exp(plain_logprob(model, prompt, answer)) for answer in answers]
    return {label: w / sum(weights) for label, w in zip(LABELS, weights, strict=True)}


@pytest.mark.parametrize("prompts", ["compact-v1", "chat-v1"])
def test_probabilities_are_those_of_a_plain_reading(
    sharp_model: Path, describe: Describe, dialogues: list[Dialogue], prompts: str
) -> None:
    description = describe(prompts)
    with Recognizer(sharp_model, description) as loaded:
        predictions = loaded.predict(dialogues)
    tops = set()
    for prediction in predictions:
        dialogue = next(d for d in dialogues if d.id == prediction.dialogue_id)
        expected = brute_force(sharp_model, description, dialogue, prediction.utterance)
        assert list(prediction.probabilities) == LABELS
        assert prediction.probabilities == pytest.approx(expected, abs=1e-5)
        assert sum(prediction.probabilities.values()) == pytest.approx(1.0, abs=1e-12)
        tops.add(max(expected.values()))
    assert max(tops) > 0.5, "the model prefers some labels, so an error would be noticed"


def test_every_turn_is_predicted_in_order(plain: Recognizer, dialogues: list[Dialogue]) -> None:
    predictions = plain.predict(dialogues)
    turns = [(d.id, i, turn) for d in dialogues for i, turn in enumerate(d.turns)]
    assert [(p.dialogue_id, p.utterance) for p in predictions] == [t[:2] for t in turns]
    assert [(p.speaker, p.text) for p in predictions] == [(t.speaker, t.text) for *_, t in turns]
    for prediction in predictions:
        assert {*prediction.labels} <= {*LABELS}
        assert prediction.label == prediction.labels[0]


def test_labels_are_those_of_the_greedy_answer(
    plain: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = iter([" fear", " joy, fear", " fear, fear", " joyless", " what joyous!"])

    def answered(prompts: list[Any], *_: Any) -> list[list[Completion]]:
        return [[Completion((), (), next(texts), True)] for _ in prompts]

    monkeypatch.setattr(plain.model.engine, "generate", answered)
    turns = [Utterance("A", "Oh.")] * 5
    predictions = plain.predict_turns(turns, probabilities=False)
    assert [(p.labels, p.well_formed) for p in predictions] == [
        (("fear",), True),
        (("joy", "fear"), True),
        (("fear",), False),
        (("joyous",), False),  # the nearest label
        (("joyous",), False),
    ]
    assert [p.answer for p in predictions][1] == " joy, fear"
    assert all(p.probabilities == {} for p in predictions)


def test_where_one_label_counts_it_is_the_first(
    sharp_model: Path, describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, expected in (
        (MultiLabel.NEVER, ("fear",)),
        (MultiLabel.AUTO, ("fear", "joy")),
        (MultiLabel.ALWAYS, ("fear", "joy")),
    ):
        with Recognizer(sharp_model, describe(multi_label=setting)) as loaded:
            completion = Completion((), (), " fear, joy", True)
            monkeypatch.setattr(loaded.model.engine, "generate", lambda *_, c=completion: [[c]])
            (prediction,) = loaded.predict_turns([Utterance("A", "Oh.")], probabilities=False)
        assert prediction.labels == expected


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_probabilities_do_not_change_the_answers(
    sharp_model: Path, describe: Describe, dialogues: list[Dialogue], batch_size: int
) -> None:
    with Recognizer(sharp_model, describe(batch_size=batch_size)) as loaded:
        scored = loaded.predict(dialogues)
        bare = loaded.predict(dialogues, probabilities=False)
    assert [(p.labels, p.answer, p.well_formed) for p in scored] == [
        (p.labels, p.answer, p.well_formed) for p in bare
    ]


def test_a_reading_is_the_probabilities_alone(
    plain: Recognizer, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfemo_jobs.inference.targets import dialogue_targets

    context = plain.model.description.context
    targets = list(dialogue_targets(dialogues[0], context))
    expected = [p.probabilities for p in plain.predict(dialogues[:1])]
    for reading, probabilities in zip(plain.read(targets), expected, strict=True):
        assert reading == pytest.approx(probabilities, abs=1e-6)
    sizes = []
    score = plain.model.engine.score

    def counted(prompts: Any, *rest: Any) -> Any:
        sizes.append(len(prompts))
        return score(prompts, *rest)

    monkeypatch.setattr(plain.model.engine, "score", counted)
    first, second = plain.read([targets[0], targets[0]])
    assert first == second
    assert sizes == [1], "equal prompts are read once"
    assert plain.read([]) == []


@dataclass
class Line:
    """A turn of another library."""

    speaker: str
    text: str


@dataclass
class Chat:
    """A dialogue of another library."""

    id: str
    turns: list[Line]


def test_any_turn_will_do_and_is_put_on_one_line(plain: Recognizer) -> None:
    lines = [Line("Ann", "Oh  no.\nWell "), Line("Ben\n", "I like\tit.")]
    known = [Utterance("Ann", "Oh no. Well"), Utterance("Ben", "I like it.")]
    (_, other), (_, usual) = plain.predict([Chat("c", lines)]), plain.predict_turns(known)
    assert isinstance(other, Prediction)
    assert other.dialogue_id == "c"
    assert other.text == "I like\tit."
    assert (other.labels, other.probabilities) == (usual.labels, usual.probabilities)


def test_a_stream_holds_few_dialogues(plain: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognizer, "PART_PROMPTS", 4)
    drawn: list[int] = []

    def many() -> Iterator[Dialogue]:
        for number in range(100):
            drawn.append(number)
            yield Dialogue(f"d{number}", (Utterance("A", "Oh."), Utterance("B", f"No {number}.")))

    stream = plain.predict_stream(many())
    predictions = list(islice(stream, 7))
    assert [p.dialogue_id for p in predictions] == ["d0", "d0", "d1", "d1", "d2", "d2", "d3"]
    assert len(drawn) <= 6, "no more dialogues are read than two parts need"


def test_parts_are_those_of_the_evaluate_stage(
    plain: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def answered(prompts: list[Any], *_: Any) -> list[list[Completion]]:
        sizes.append(len(prompts))
        return [[Completion((), (), " joy", True)] for _ in prompts]

    monkeypatch.setattr(plain.model.engine, "generate", answered)
    turns = tuple(Utterance("A", f"Oh {i}.") for i in range(700))
    plain.predict([Dialogue("d1", turns), Dialogue("d2", turns)], probabilities=False)
    assert sizes == [1024, 376]


def test_nothing_to_predict(plain: Recognizer) -> None:
    assert plain.predict([]) == []
    assert plain.predict([Dialogue("d", ())]) == []
    assert plain.predict_turns([]) == []


def test_a_turn_that_is_too_long_is_named(sharp_model: Path, describe: Describe) -> None:
    description = describe()
    prompts = description.prompts.model_copy(update={"max_prompt_tokens": 32})
    description = description.model_copy(update={"prompts": prompts})
    turns = (Utterance("A", "Oh."), Utterance("B", "no way " * 40))
    advice = r"turn 1 is longer than a prompt of this model \(32 tokens\): shorten or divide it$"
    with Recognizer(sharp_model, description) as loaded:
        with pytest.raises(BadInput, match=f"^dialogue d1 {advice}"):
            loaded.predict([Dialogue("d1", turns)])
        with pytest.raises(BadInput, match=f"^{advice}"):
            loaded.predict_turns(turns)


def test_the_engine_is_that_of_the_evaluation(sharp_model: Path, describe: Describe) -> None:
    description = describe(engine_args={"dtype": "bfloat16"}, batch_size=5)
    with Recognizer(sharp_model, description) as loaded:
        assert loaded.model.engine.model.dtype is torch.bfloat16  # type: ignore[attr-defined]
        assert loaded.model.engine._batch == 5  # type: ignore[attr-defined]
    arguments = {"dtype": "float32", "batch_size": 2}
    with Recognizer(sharp_model, description, engine_args=arguments) as loaded:
        assert loaded.model.engine.model.dtype is torch.float32  # type: ignore[attr-defined]
        assert loaded.model.engine._batch == 2  # type: ignore[attr-defined]
    other = describe(engine=Engine.VLLM, engine_args={"gpu_memory_utilization": 0.5})
    with Recognizer(sharp_model, other, engine=Engine.TRANSFORMERS) as loaded:
        assert loaded.model.engine._batch == 4  # type: ignore[attr-defined]


def test_a_template_is_checked_before_the_model_is_loaded(
    tmp_path: Path, describe: Describe
) -> None:
    description = describe()
    texts = {**description.prompts.texts, "recognize": "{{ text }}{{ text.__class__ }}"}
    prompts = description.prompts.model_copy(update={"texts": texts})
    with pytest.raises(BadInput, match="__class__"):
        Recognizer(tmp_path / "missing", description.model_copy(update={"prompts": prompts}))


def test_prompts_longer_than_the_positions_are_refused(
    tiny_model: Path, tmp_path: Path, describe: Describe
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 515}))
    with pytest.raises(BadInput, match=r"prompts of 512 tokens.*it supports 515"):
        Recognizer(folder, describe())


def test_several_threads_take_turns(
    sharp_model: Path, describe: Describe, dialogues: list[Dialogue]
) -> None:
    with LoadedModel(sharp_model, describe()) as model:
        loaded = Recognizer(sharp_model, model.description, model=model)
        expected = loaded.predict(dialogues)
        results: list[list[Prediction]] = []
        threads = [
            Thread(target=lambda: results.append(loaded.predict(dialogues))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [expected] * 4
