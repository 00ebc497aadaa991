"""The responder: replies as self-play draws them, read as the judge reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.jobs.inference.conftest import LABELS

from selfemo_api.model_description import ModelDescription
from selfemo_api.spec import Context, EvolutionSpec
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.engines.interface import Completion
from selfemo_jobs.errors import BadInput
from selfemo_jobs.inference import Recognizer, Responder
from selfemo_jobs.stages.score.judge import JudgeReader
from selfemo_jobs.stages.selfplay.dialogue_state import initial_state
from selfemo_jobs.stages.selfplay.episodes import Episode
from selfemo_jobs.stages.selfplay.self_player import SelfPlayer

Describe = Callable[..., ModelDescription]
CONTEXT = (Utterance("Ann", "Oh no."), Utterance("Ben", "Well?"), Utterance("Ann", "I know."))


@pytest.fixture
def responder(sharp_model: Path, describe: Describe) -> Iterator[Responder]:
    with Responder(sharp_model, describe(temperature=1.5, top_p=0.95)) as loaded:
        yield loaded


def test_the_same_seed_gives_the_same_candidates(responder: Responder) -> None:
    first = responder.reply(CONTEXT, "Ben", "joy", n=5, seed=3)
    assert len(first) == 5
    assert len({reply.text for reply in first}) > 1, "candidates must differ"
    responder.reply(CONTEXT, "Ben", "fear", n=2, seed=1)
    assert responder.reply(CONTEXT, "Ben", "joy", n=5, seed=3) == first
    other = responder.reply(CONTEXT, "Ben", "joy", n=5, seed=4)
    assert [r.text for r in other] != [r.text for r in first]


def test_a_reading_is_the_recognizers(responder: Responder) -> None:
    replies = [r for r in responder.reply(CONTEXT, "Ben", "joy", n=8, seed=1) if r.text]
    assert replies
    for reply in replies:
        turns = [*CONTEXT, Utterance("Ben", reply.text)]
        expected = responder.recognizer.predict_turns(turns)[-1].probabilities
        assert list(reply.reading) == LABELS
        assert reply.reading == pytest.approx(expected, abs=1e-5)
        top = max(reply.reading, key=lambda label: reply.reading[label])
        assert reply.expresses == (top == "joy")


def test_what_the_reading_prefers_is_expressed(responder: Responder) -> None:
    (reply,) = responder.reply(CONTEXT, "Ben", "joy", seed=1)
    top = max(reply.reading, key=lambda label: reply.reading[label])
    (again,) = responder.reply(CONTEXT, "Ben", "joy", seed=1)
    assert again.expresses == (top == "joy")
    expressed = {
        r.expresses
        for emotion in LABELS
        for r in responder.reply(CONTEXT, "Ben", emotion, n=6, seed=2)
    }
    assert expressed == {True, False}


def test_prompts_are_those_of_self_play_and_of_the_judge(
    responder: Responder,
    make_spec: Callable[..., EvolutionSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = responder.recognizer.model.engine
    prompts: list[tuple[int, ...]] = []
    generate, score = engine.generate, engine.score

    def seen_by_generate(ids: list[Any], sampling: Any) -> Any:
        prompts.extend(map(tuple, ids))
        assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (1.5, 0.95, 12)
        assert sampling.stop == ("\n",)
        return generate(ids, sampling)

    def seen_by_score(ids: list[Any], *rest: Any) -> Any:
        prompts.extend(map(tuple, ids))
        return score(ids, *rest)

    monkeypatch.setattr(engine, "generate", seen_by_generate)
    monkeypatch.setattr(engine, "score", seen_by_score)
    (reply,) = responder.reply(CONTEXT, "Ben", "joy", seed=3)
    assert reply.text
    spec = make_spec(
        dataset={"labels": LABELS, "context": {"past": 2, "future": 1}},
        model={"maxPromptTokens": 512},
    )
    dialogue = Dialogue("d", CONTEXT)
    episode = Episode(0, "demo", dialogue, 2, False, (("joy",),))
    request = SelfPlayer(engine, spec, 1).responder_request(initial_state(episode), 0)
    assert request.state.next_speaker == "Ben"
    judge = JudgeReader(engine, spec)
    assert prompts == [
        request.prompt_ids,
        judge._prompt(CONTEXT[-2:], "Ben", reply.text),
    ]


def test_an_empty_reply_expresses_nothing(
    responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ", "", " Oh no. ", "Well", "..."]
    completions = [Completion((), (), text, text != "Well") for text in texts]
    monkeypatch.setattr(responder.recognizer.model.engine, "generate", lambda *_: [completions])
    replies = responder.reply(CONTEXT, "Ben", "joy", n=5)
    assert [r.text for r in replies] == ["", "", "Oh no.", "Well", "..."]
    assert [r.valid for r in replies] == [False, False, True, False, False]
    for reply in replies[:2]:
        assert reply.reading == dict.fromkeys(LABELS, 0.0)
        assert not reply.expresses
    for reply in replies[2:]:
        assert sum(reply.reading.values()) == pytest.approx(1.0)


def test_another_recognizer_reads(
    sharp_model: Path, tiny_model: Path, describe: Describe, responder: Responder
) -> None:
    description = describe().model_copy(update={"context": Context(past=0)})
    with Recognizer(tiny_model, description) as judge:
        with Responder(sharp_model, responder._model.description, recognizer=judge) as other:
            assert other.recognizer is judge
            (reply,) = other.reply(CONTEXT, "Ben", "joy", seed=3)
        (own,) = responder.reply(CONTEXT, "Ben", "joy", seed=3)
        assert reply.text == own.text
        assert reply.reading != own.reading
        # the judge is still open
        expected = judge.predict_turns([Utterance("Ben", reply.text)])[0].probabilities
    assert reply.reading == pytest.approx(expected, abs=1e-6)


def test_of_a_turn_that_is_too_long_the_beginning_is_answered(
    responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[list[int]] = []
    model = responder.recognizer.model
    generate = model.engine.generate

    def seen(ids: list[Any], sampling: Any) -> Any:
        prompts.extend(ids)
        return generate(ids, sampling)

    monkeypatch.setattr(model.engine, "generate", seen)
    responder.reply(CONTEXT, "Ben", "joy")
    assert responder.shortened == 0
    long = Utterance("Ann", "I know. " * 400)
    responder.reply([*CONTEXT, long], "Ben", "joy")
    assert responder.shortened == 1
    most = model.max_prompt_tokens
    assert most - 4 <= len(prompts[-1]) <= most
    text = model.engine.tokenizer.decode(prompts[-1])
    assert text.startswith("Ann: I know. I know. ") and text.endswith("\n(joy) Ben:")
    with pytest.raises(
        BadInput, match=r"^turn 0 does not fit a prompt of this model \(512 tokens\)"
    ):
        responder.reply([Utterance("A" * 9000, "Hi.")], "Ben", "joy")


def test_a_dialogue_can_begin_with_a_reply(responder: Responder) -> None:
    assert len(responder.reply([], "Ann", "fear", n=2)) == 2


def test_lines_are_joined(responder: Responder) -> None:
    broken = [Utterance(t.speaker, t.text.replace(" ", "\n")) for t in CONTEXT]
    assert responder.reply(broken, "Ben", "joy", seed=3) == responder.reply(
        CONTEXT, "Ben", "joy", seed=3
    )


def test_what_cannot_be_expressed_is_named(
    responder: Responder, sharp_model: Path, describe: Describe
) -> None:
    with pytest.raises(BadInput, match=r"bliss is not a label of the model \(joy, joyous"):
        responder.reply(CONTEXT, "Ben", "bliss")
    with pytest.raises(BadInput, match="1 or more"):
        responder.reply(CONTEXT, "Ben", "joy", n=0)
    fewer = describe().model_copy(update={"labels": ["fear", "no"]})
    with (
        Recognizer(sharp_model, fewer) as judge,
        Responder(sharp_model, describe(), recognizer=judge) as other,
        pytest.raises(BadInput, match=r"joy is not a label of the model \(fear, no\)"),
    ):
        other.reply(CONTEXT, "Ben", "joy")
