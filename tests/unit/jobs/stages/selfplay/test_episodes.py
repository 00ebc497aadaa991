"""The plan of a generation's episodes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.spec import Context, SelfPlaySpec
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.inference.responses import last_turns, responder_context
from selfemo_jobs.stages.selfplay.episodes import (
    LISTENER,
    SourceDialogues,
    intended_emotions,
    parts_of_shard,
    plan_episodes,
    responding_speaker,
    split_into_parts,
)

LABELS = ("neutral", "joy", "anger")


def dialogue(name: str, speakers: str, label: str = "joy") -> Dialogue:
    turns = tuple(Utterance(s, f"{name} says {i}", (label,)) for i, s in enumerate(speakers))
    return Dialogue(name, turns)


def source(count: int, name: str = "demo", label: str = "joy") -> SourceDialogues:
    return SourceDialogues(name, [dialogue(f"d{i}", "ABABC", label) for i in range(count)])


@given(
    dialogues=st.integers(1, 30),
    drawn=st.none() | st.integers(1, 40),
    targets=st.integers(1, 8),
    turns=st.integers(1, 3),
    batch=st.integers(1, 50),
    shards=st.integers(1, 7),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_episode_is_in_one_part_of_one_shard(
    dialogues: int,
    drawn: int | None,
    targets: int,
    turns: int,
    batch: int,
    shards: int,
    seed: int,
) -> None:
    settings_ = SelfPlaySpec(
        dialogues=drawn, targets_per_dialogue=targets, turns=turns, batch_prompts=batch
    )
    episodes = plan_episodes([source(dialogues)], settings_, LABELS, seed)
    assert len(episodes) == min(dialogues, drawn or dialogues) * min(targets, 5)
    assert len({(e.dialogue.id, e.utterance) for e in episodes}) == len(episodes)
    assert [e.index for e in episodes] == list(range(len(episodes)))
    parts = split_into_parts(episodes, settings_)
    assert all(parts)
    assert all(len(part) * 2 * turns <= batch or len(part) == 1 for part in parts)
    assigned = [number for k in range(shards) for number in parts_of_shard(len(parts), k, shards)]
    assert sorted(assigned) == list(range(len(parts)))
    assert [episode for part in parts for episode in part] == episodes


@given(st.integers(0, 2**31 - 1))
def test_the_plan_does_not_depend_on_the_sources_labels(seed: int) -> None:
    episodes = [
        plan_episodes([source(6, label=label)], SelfPlaySpec(), LABELS, seed)
        for label in ("joy", "anger")
    ]
    plans = [[(e.index, e.dialogue.id, e.utterance, e.intended) for e in some] for some in episodes]
    assert plans[0] == plans[1]


def test_another_seed_draws_other_dialogues() -> None:
    settings_ = SelfPlaySpec(dialogues=5)
    one, two = (
        [e.dialogue.id for e in plan_episodes([source(40)], settings_, LABELS, seed)]
        for seed in (1, 2)
    )
    assert one != two


def test_dialogues_of_all_sources_are_mixed() -> None:
    episodes = plan_episodes([source(9), source(9, "other")], SelfPlaySpec(), LABELS, 4)
    assert {e.source for e in episodes[:8]} == {"demo", "other"}


@given(st.integers(0, 2**31 - 1), st.integers(1, 12), st.integers(1, 12))
def test_a_source_may_have_its_own_number_of_dialogues(
    seed: int, draw: int, dialogues: int
) -> None:
    own = SourceDialogues("labeled", source(9).dialogues, use_labels=True, draw=draw)
    episodes = plan_episodes([source(9), own], SelfPlaySpec(dialogues=dialogues), LABELS, seed)
    drawn = Counter(name for name, _ in {(e.source, e.dialogue.id) for e in episodes})
    assert drawn == {"demo": min(9, dialogues), "labeled": min(9, draw)}
    alone = plan_episodes([source(9)], SelfPlaySpec(dialogues=dialogues), LABELS, seed)
    of_demo = {e.dialogue.id for e in episodes if e.source == "demo"}
    assert {e.dialogue.id for e in alone} == of_demo


@given(st.integers(0, 2**31 - 1), st.integers(1, 20))
def test_intended_emotions_are_balanced(seed: int, blocks: int) -> None:
    intended = [intended_emotions(LABELS, i, seed) for i in range(3 * blocks)]
    assert Counter(intended) == {(label,): blocks for label in LABELS}
    reordered = [intended_emotions(LABELS[::-1], i, seed) for i in range(3 * blocks)]
    assert intended == reordered


def test_the_order_of_intended_emotions_differs_between_blocks() -> None:
    blocks = {tuple(intended_emotions(LABELS, 3 * b + i, 0) for i in range(3)) for b in range(30)}
    assert len(blocks) > 3


def test_another_speaker_responds() -> None:
    assert responding_speaker(dialogue("x", "ABA"), 2) == "B"
    assert responding_speaker(dialogue("x", "ABCA"), 3) == "C"
    assert responding_speaker(dialogue("x", "AAB"), 0) == "B"
    assert responding_speaker(dialogue("x", "AA"), 1) == LISTENER


def test_the_oldest_turns_are_left_out_of_the_context() -> None:
    turns = dialogue("x", "ABABAB").turns
    assert last_turns(turns[:5], 2) == turns[3:5]
    assert last_turns(turns[:5], 0) == ()
    assert responder_context(turns[:5], Context(past=0)) == turns[4:5]
    assert responder_context(turns[:5], Context(past=9)) == turns[:5]
