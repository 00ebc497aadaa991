"""The plan of a generation: pure, so checked at length."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.spec import Context, SelfPlaySpec
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.stages.selfplay.episodes import (
    LISTENER,
    SourceDialogues,
    cut_parts,
    heard_turns,
    intended_emotions,
    parts_of_shard,
    past_turns,
    plan_episodes,
    respondent,
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
def test_every_play_is_dealt_once_whatever_the_shards(
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
    assert len({(p.dialogue.id, p.utterance) for p in episodes}) == len(episodes)
    assert [p.index for p in episodes] == list(range(len(episodes)))
    parts = cut_parts(episodes, settings_)
    assert all(parts)
    assert all(len(p) * 2 * turns <= batch or len(p) == 1 for p in parts)
    dealt = [number for k in range(shards) for number in parts_of_shard(len(parts), k, shards)]
    assert sorted(dealt) == list(range(len(parts)))
    assert [p for part in parts for p in part] == episodes


@given(st.integers(0, 2**31 - 1))
def test_labels_of_the_source_change_nothing(seed: int) -> None:
    episodes = [
        plan_episodes([source(6, label=label)], SelfPlaySpec(), LABELS, seed)
        for label in ("joy", "anger")
    ]
    shown = [[(p.index, p.dialogue.id, p.utterance, p.intended) for p in some] for some in episodes]
    assert shown[0] == shown[1]


def test_draws_differ_between_seeds() -> None:
    settings_ = SelfPlaySpec(dialogues=5)
    one, two = (
        [p.dialogue.id for p in plan_episodes([source(40)], settings_, LABELS, seed)]
        for seed in (1, 2)
    )
    assert one != two


def test_all_sources_take_part() -> None:
    episodes = plan_episodes([source(9), source(9, "other")], SelfPlaySpec(), LABELS, 4)
    assert {p.source for p in episodes[:8]} == {"demo", "other"}


@given(st.integers(0, 2**31 - 1), st.integers(1, 12), st.integers(1, 12))
def test_a_source_may_have_its_own_share(seed: int, draw: int, dialogues: int) -> None:
    own = SourceDialogues("labeled", source(9).dialogues, use_labels=True, draw=draw)
    episodes = plan_episodes([source(9), own], SelfPlaySpec(dialogues=dialogues), LABELS, seed)
    drawn = Counter(name for name, _ in {(p.source, p.dialogue.id) for p in episodes})
    assert drawn == {"demo": min(9, dialogues), "labeled": min(9, draw)}
    alone = plan_episodes([source(9)], SelfPlaySpec(dialogues=dialogues), LABELS, seed)
    assert {p.dialogue.id for p in alone} == {p.dialogue.id for p in episodes if p.source == "demo"}


@given(st.integers(0, 2**31 - 1), st.integers(1, 20))
def test_intended_emotions_are_balanced(seed: int, blocks: int) -> None:
    asked = [intended_emotions(LABELS, i, seed) for i in range(3 * blocks)]
    assert Counter(asked) == {(label,): blocks for label in LABELS}
    reordered = [intended_emotions(LABELS[::-1], i, seed) for i in range(3 * blocks)]
    assert asked == reordered


def test_intended_emotions_do_not_follow_a_cycle() -> None:
    blocks = {tuple(intended_emotions(LABELS, 3 * b + i, 0) for i in range(3)) for b in range(30)}
    assert len(blocks) > 3


def test_who_answers() -> None:
    assert respondent(dialogue("x", "ABA"), 2) == "B"
    assert respondent(dialogue("x", "ABCA"), 3) == "C"
    assert respondent(dialogue("x", "AAB"), 0) == "B"
    assert respondent(dialogue("x", "AA"), 1) == LISTENER


def test_context_is_cut_from_the_oldest() -> None:
    turns = dialogue("x", "ABABAB").turns
    assert past_turns(turns[:5], 2) == turns[3:5]
    assert past_turns(turns[:5], 0) == ()
    assert heard_turns(turns[:5], Context(past=0)) == turns[4:5]
    assert heard_turns(turns[:5], Context(past=9)) == turns[:5]
