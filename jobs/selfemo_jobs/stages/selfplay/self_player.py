"""Plays a part: prompts for both roles, turn by turn, and the rows that come of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from selfemo_api.seeds import ROLE_STREAMS, derive_seed
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.errors import BadInput
from selfemo_jobs.prompts import load_prompt_set, parse_labels
from selfemo_jobs.runtime.schemas import CANDIDATES
from selfemo_jobs.stages.selfplay.episodes import (
    Episode,
    group_id,
    heard_turns,
    past_turns,
    respondent,
)

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine

Row = dict[str, Any]


@dataclass(frozen=True)
class DialogueState:
    """Where a play stands: the turns so far, the last of which is read and answered."""

    play: Episode
    turns: tuple[Utterance, ...]
    answerer: str
    """Who speaks next."""

    def said(self, text: str) -> DialogueState:
        """Return the scene after the next speaker has said something."""
        last = self.turns[-1].speaker
        return DialogueState(self.play, (*self.turns, Utterance(self.answerer, text)), last)


@dataclass(frozen=True)
class PromptRequest:
    """One prompt: a group of completions comes of it."""

    scene: DialogueState
    turn: int
    role: Role
    prompt: tuple[int, ...]
    context: tuple[Utterance, ...]
    views: tuple[tuple[int, ...], ...] = ()
    """Prompts by which the judge reads the target; none: by ``prompt``."""

    @property
    def gold(self) -> list[str]:
        """The target's own labels, where they may be read; a response has none."""
        read = self.scene.play.use_labels and self.turn == 0
        return list(self.scene.turns[-1].labels) if read else []


#: A prompt with what came of it.
Group = tuple[PromptRequest, list[Completion]]


class SelfPlayer:
    """The rules of the game: everything but the episodes.

    Parameters
    ----------
    engine
        The policy.
    spec
        The evolution's spec.
    generation
        The generation that episodes.
    """

    def __init__(self, engine: TextEngine, spec: EvolutionSpec, generation: int) -> None:
        self._engine = engine
        self._spec = spec
        self._generation = generation
        self._prompts = load_prompt_set(spec.model.prompts)

    def play_part(self, episodes: Sequence[Episode], seed: int) -> pa.Table:
        """Return the rows (:data:`~selfemo_jobs.runtime.schemas.CANDIDATES`) of a part.

        Parameters
        ----------
        episodes
            The part's episodes.
        seed
            The part's seed: a part that is played again gives the same rows.
        """
        scenes = [opening(play) for play in episodes]
        rows: list[Row] = []
        for turn in range(self._spec.self_play.turns):
            reads, answers = self._play_turn(scenes, turn, seed)
            for ask, group in reads:
                rows += self._recognizer_rows(ask, group)
            scenes = []
            for ask, group in answers:
                chosen = self._choose(ask, group, seed)
                rows += self._responder_rows(ask, group, chosen)
                if chosen is not None:
                    scenes.append(ask.scene.said(group[chosen].text.strip()))
        return pa.Table.from_pylist(rows, schema=CANDIDATES)

    def sampling(self, role: Role, seed: int) -> Sampling:
        """Return how a role's completions are drawn."""
        settings = self._spec.self_play
        longest = settings.max_tokens
        recognizer = role is Role.RECOGNIZER
        return Sampling(
            n=settings.group_size,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=longest.recognizer if recognizer else longest.responder,
            stop=self._prompts.stop(role),
            seed=seed,
        )

    def ask_recognizer(self, scene: DialogueState, turn: int) -> PromptRequest:
        """Return the prompt that has a scene's last utterance read."""
        seen = self._spec.dataset.context
        prompt = self._reading(scene, turn, seen.past, seen.future)
        views: tuple[tuple[int, ...], ...] = ()
        if self._spec.reward.judge.weight > 0.0:  # else the judge reads no target
            wanted = self._spec.reward.judge.views
            views = tuple(self._reading(scene, turn, view.past, view.future) for view in wanted)
        context = past_turns(scene.turns[:-1], seen.past)
        return PromptRequest(scene, turn, Role.RECOGNIZER, prompt, context, views)

    def _reading(self, scene: DialogueState, turn: int, past: int, future: int) -> tuple[int, ...]:
        """Return the prompt that has a scene's last utterance read, with so many turns around."""
        *before, target = scene.turns
        following: tuple[Utterance, ...] = ()
        if turn == 0:  # after an appended response the source's own turns are no longer its future
            first = scene.play.utterance + 1
            following = scene.play.dialogue.turns[first : first + future]
        with _naming(scene.play):
            prompt = self._prompts.recognise_ids(
                self._engine.tokenizer,
                past_turns(before, past),
                target.speaker,
                target.text,
                self._spec.dataset.labels,
                following,
                max_tokens=self._spec.model.max_prompt_tokens,
            )
        return tuple(prompt)

    def ask_responder(self, scene: DialogueState, turn: int) -> PromptRequest:
        """Return the prompt that has a scene's last utterance answered."""
        context = heard_turns(scene.turns, self._spec.dataset.context)
        with _naming(scene.play):
            prompt = self._prompts.respond_ids(
                self._engine.tokenizer,
                context,
                scene.answerer,
                scene.play.intended[turn],
                self._spec.dataset.labels,
                max_tokens=self._spec.model.max_prompt_tokens,
            )
        return PromptRequest(scene, turn, Role.RESPONDER, tuple(prompt), context)

    def _play_turn(
        self, scenes: Sequence[DialogueState], turn: int, seed: int
    ) -> tuple[list[Group], list[Group]]:
        """Return what the recognizers and the responders say of the scenes.

        Both at once: neither waits for the other's stragglers. The long responses are asked for
        first, so that short answers fill the end.
        """
        asks: list[PromptRequest] = []
        if Role.RESPONDER in self._spec.self_play.roles:
            asks += [self.ask_responder(scene, turn) for scene in scenes]
        responders = len(asks)
        if Role.RECOGNIZER in self._spec.self_play.roles:
            asks += [self.ask_recognizer(scene, turn) for scene in scenes]
        kinds = {
            role: self.sampling(role, derive_seed(seed, turn, ROLE_STREAMS[role])) for role in Role
        }
        found = self._engine.generate([a.prompt for a in asks], [kinds[a.role] for a in asks])
        groups = list(zip(asks, found, strict=True))
        return groups[responders:], groups[:responders]

    def _choose(self, ask: PromptRequest, group: Sequence[Completion], seed: int) -> int | None:
        """Return the member of a responder's group that goes on."""
        index = ask.scene.play.index
        return choose([well_said(c) for c in group], derive_seed(seed, "choice", ask.turn, index))

    def _recognizer_rows(self, ask: PromptRequest, group: Sequence[Completion]) -> Iterator[Row]:
        target = ask.scene.turns[-1]
        for member, completion in enumerate(group):
            parsed = parse_labels(completion.text, self._spec.dataset.labels)
            yield {
                **self._row(ask, member, completion),
                "speaker": target.speaker,
                "target": target.text,
                "intended": None,
                "gold": ask.gold or None,
                "views": [list(view) for view in ask.views] if member == 0 else [],
                "labels": list(parsed.labels),
                # cut off, an answer may lack a label
                "well_formed": parsed.well_formed and completion.finished,
                "chosen": False,
            }

    def _responder_rows(
        self, ask: PromptRequest, group: Sequence[Completion], chosen: int | None
    ) -> Iterator[Row]:
        for member, completion in enumerate(group):
            yield {
                **self._row(ask, member, completion),
                "speaker": ask.scene.answerer,
                "target": None,
                "intended": list(ask.scene.play.intended[ask.turn]),
                "gold": None,
                "views": [],
                "labels": None,
                "well_formed": well_said(completion),
                "chosen": member == chosen,
            }

    def _row(self, ask: PromptRequest, member: int, completion: Completion) -> Row:
        play = ask.scene.play
        return {
            "group_id": group_id(play, self._generation, ask.turn, ask.role),
            "role": ask.role.value,
            "generation": self._generation,
            "source": play.source,
            "dialogue_id": play.dialogue.id,
            "utterance": play.utterance,
            "turn": ask.turn,
            "member": member,
            "context": [{"speaker": t.speaker, "text": t.text} for t in ask.context],
            "prompt_ids": list(ask.prompt),
            "completion_ids": list(completion.token_ids),
            "logprobs": list(completion.logprobs),
            "completion": completion.text,
            "finished": completion.finished,
        }


def opening(play: Episode) -> DialogueState:
    """Return the scene that a play begins with: the source's turns up to the target."""
    turns = play.dialogue.turns[: play.utterance + 1]
    return DialogueState(play, turns, respondent(play.dialogue, play.utterance))


def well_said(completion: Completion) -> bool:
    """Return whether a response is one whole line of speech, with a word in it."""
    text = completion.text.strip()
    return completion.finished and "\n" not in text and any(c.isalnum() for c in text)


def choose(eligible: Sequence[bool], seed: int) -> int | None:
    """Return the member whose response goes on: one of the eligible, drawn by the seed.

    No reward is known yet, and a choice by the model's own liking would narrow the dialogues.
    None: no response is fit to go on.
    """
    members = [member for member, fit in enumerate(eligible) if fit]
    return random.Random(seed).choice(members) if members else None


@contextmanager
def _naming(play: Episode) -> Iterator[None]:
    """Add the place to an error about a prompt."""
    try:
        yield
    except BadInput as error:
        place = f"source `{play.source}` dialogue {play.dialogue.id} utterance {play.utterance}"
        raise BadInput(f"{place}: {error}") from None
