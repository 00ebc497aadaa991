"""The sample of expression: fixed, of many dialogues, and of as many turns of each emotion."""

from __future__ import annotations

from collections import Counter

import pytest

from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.stages.evaluate.expression_sample import (
    MOST_RESPONSES,
    RESPONSES_PER_UTTERANCE,
    draw_contexts,
    draw_human_turns,
    number_of_contexts,
)

LABELS = ["joy", "fear", "anger"]


def dialogues(count: int, turns: int = 6) -> list[Dialogue]:
    """Return dialogues in which Ann speaks twice at first, and then both in turn."""
    return [
        Dialogue(
            f"d{number}",
            tuple(
                Utterance("Ann" if i in (0, 1, 3, 5) else "Bo", f"turn {i}", (LABELS[i % 3],))
                for i in range(turns)
            ),
        )
        for number in range(count)
    ]


def test_each_context_is_of_another_dialogue_and_is_answered_by_who_really_spoke() -> None:
    drawn = draw_contexts(dialogues(40), 30)
    assert len({context.dialogue.id for context in drawn}) == len(drawn) == 30
    for context in drawn:
        following = context.dialogue.turns[context.utterance + 1]
        assert context.speaker == following.speaker != context.turns[-1].speaker
        assert context.turns == context.dialogue.turns[: context.utterance + 1]
    assert len({context.utterance for context in drawn}) > 2, "the places are drawn, too"


def test_the_sample_follows_from_the_dialogues_alone() -> None:
    first = [(c.dialogue.id, c.utterance) for c in draw_contexts(dialogues(40), 20)]
    assert first == [(c.dialogue.id, c.utterance) for c in draw_contexts(dialogues(40), 20)]
    shorter = [(c.dialogue.id, c.utterance) for c in draw_contexts(dialogues(40), 10)]
    assert shorter == first[:10]
    assert [name for name, _ in first] != [f"d{n}" for n in range(20)]
    unlabeled = [
        Dialogue(d.id, tuple(Utterance(t.speaker, t.text) for t in d.turns)) for d in dialogues(40)
    ]
    assert first == [(c.dialogue.id, c.utterance) for c in draw_contexts(unlabeled, 20)]


def test_few_dialogues_give_several_contexts_each() -> None:
    drawn = draw_contexts(dialogues(3), 8)
    assert sorted(Counter(c.dialogue.id for c in drawn).values()) == [2, 3, 3]
    assert len({(c.dialogue.id, c.utterance) for c in drawn}) == 8
    # five of the six turns have a next one; the first is answered by its own speaker, as a last try
    everything = draw_contexts(dialogues(1), 100)
    assert sorted(c.utterance for c in everything) == [0, 1, 2, 3, 4]
    assert everything[-1].utterance == 0


def test_a_single_turn_is_answered_by_another_speaker() -> None:
    (context,) = draw_contexts(dialogues(1, turns=1), 5)
    assert (context.utterance, context.speaker) == (0, "B")
    assert draw_contexts([], 5) == []


def test_real_turns_are_as_many_of_each_emotion() -> None:
    some = dialogues(10)
    drawn = draw_human_turns(some, LABELS, 4)
    assert [human.turn.labels[0] for human in drawn] == sorted(LABELS * 4, key=LABELS.index)
    assert len({(human.dialogue.id, human.utterance) for human in drawn}) == 12
    assert drawn == draw_human_turns(some, LABELS, 4)
    rare = [*some, Dialogue("rare", (Utterance("A", "!", ("disgust", "joy")),))]
    drawn = draw_human_turns(rare, [*LABELS, "disgust"], 4)
    assert [human.dialogue.id for human in drawn[12:]] == ["rare"]
    assert draw_human_turns(some, LABELS, 0) == []


@pytest.mark.parametrize("labels", [1, 7, 28, 64])
@pytest.mark.parametrize("utterances", [1, 100, 1109, 10**6])
def test_the_work_is_bounded(utterances: int, labels: int) -> None:
    contexts = number_of_contexts(utterances, labels)
    assert contexts >= 1
    responses = contexts * labels
    assert responses <= max(labels, MOST_RESPONSES)
    assert responses <= max(labels, RESPONSES_PER_UTTERANCE * utterances)
