"""The plan of a generation's episodes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.dialogue_files import store_dialogues

from selfemo_api.seeds import derive_seed
from selfemo_api.spec import Context, SelfPlaySpec
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.inference.responses import last_turns, responder_context
from selfemo_jobs.stages.selfplay.episodes import (
    LISTENER,
    Episode,
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
    assert [episode for part in parts for episode in part] == list(episodes)


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


def plain_plan(sources: list[SourceDialogues], settings_: SelfPlaySpec, seed: int) -> list[Episode]:
    """Return the plan as lists of dialogues in memory give it."""
    pool = [(s, one) for s in sources if s.draw is None for one in s.dialogues]
    random.Random(derive_seed(seed, "dialogues")).shuffle(pool)
    drawn = pool[: settings_.dialogues]
    own_numbers = [s for s in sources if s.draw is not None]
    for s in own_numbers:
        own = list(s.dialogues)
        random.Random(derive_seed(seed, "dialogues", s.name)).shuffle(own)
        drawn += [(s, one) for one in own[: s.draw]]
    if own_numbers:
        random.Random(derive_seed(seed, "order")).shuffle(drawn)
    episodes: list[Episode] = []
    for s, one in drawn:
        generator = random.Random(derive_seed(seed, "targets", s.name, one.id))
        count = min(settings_.targets_per_dialogue, len(one.turns))
        for utterance in sorted(generator.sample(range(len(one.turns)), count)):
            first = len(episodes) * settings_.turns
            intended = tuple(
                intended_emotions(LABELS, first + turn, seed) for turn in range(settings_.turns)
            )
            episodes.append(Episode(len(episodes), s.name, one, utterance, s.use_labels, intended))
    return episodes


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 6), min_size=1, max_size=12),
            st.none() | st.integers(1, 9),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    st.none() | st.integers(1, 20),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(0, 2**31 - 1),
)
def test_stored_dialogues_give_the_plan_of_lists(
    tmp_path: Path,
    lengths: list[tuple[list[int], int | None, bool]],
    dialogues: int | None,
    targets: int,
    batch: int,
    seed: int,
) -> None:
    sources = [
        SourceDialogues(
            f"s{number}",
            [dialogue(f"d{i}", "ABABAB"[:length]) for i, length in enumerate(turns)],
            use_labels,
            draw,
        )
        for number, (turns, draw, use_labels) in enumerate(lengths)
    ]
    settings_ = SelfPlaySpec(
        dialogues=dialogues, targets_per_dialogue=targets, batch_prompts=batch, turns=2
    )
    expected = plain_plan(sources, settings_, seed)
    stored = [replace(s, dialogues=store_dialogues(s.dialogues, tmp_path)) for s in sources]
    for some in (sources, stored):
        plan = plan_episodes(some, settings_, LABELS, seed)
        assert list(plan) == expected
        parts = split_into_parts(plan, settings_)
        assert [episode for part in reversed(parts) for episode in reversed(list(part))] == (
            expected[::-1]
        )
        assert plan[len(plan) - 1] == plan[-1] == expected[-1]
        with pytest.raises(IndexError):
            plan[len(plan)]


def test_a_part_reads_its_own_dialogues_only() -> None:
    class Counting(list[Dialogue]):
        read = 0

        def __getitem__(self, index: Any) -> Any:
            self.read += 1
            return super().__getitem__(index)

    dialogues = Counting(source(100).dialogues)
    settings_ = SelfPlaySpec(targets_per_dialogue=2, batch_prompts=32, turns=2)
    plan = plan_episodes([SourceDialogues("demo", dialogues)], settings_, LABELS, 1)
    parts = split_into_parts(plan, settings_)
    assert (len(plan), len(parts), len(parts[3]), dialogues.read) == (200, 25, 8, 0)
    assert len(list(parts[3])) == 8
    assert dialogues.read <= 5
