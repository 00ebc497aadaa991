"""Self-play: the policy generates candidates for both roles, turn by turn."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from selfemo_api.seeds import ROLE_STREAMS, derive_seed
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.errors import PromptTooLong
from selfemo_jobs.inference.responses import (
    is_valid_response,
    last_turns,
    responder_context,
)
from selfemo_jobs.prompts import parse_labels, prompt_set_of
from selfemo_jobs.runtime.schemas import CANDIDATES
from selfemo_jobs.stages.selfplay.dialogue_state import (
    DialogueState,
    PromptRequest,
    initial_state,
)
from selfemo_jobs.stages.selfplay.episodes import Episode, group_id

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine

Row = dict[str, Any]


#: A request and its completions.
CompletionGroup = tuple[PromptRequest, list[Completion]]


class SelfPlayer:
    """Builds the prompts of both roles, generates completions and turns them into rows.

    Parameters
    ----------
    engine
        The engine with the policy loaded.
    spec
        The evolution's spec.
    generation
        Number of the generation, which becomes part of the group ids.
    """

    def __init__(self, engine: TextEngine, spec: EvolutionSpec, generation: int) -> None:
        self._engine = engine
        self._spec = spec
        self._generation = generation
        self._prompts = prompt_set_of(spec.model)

    def generate_candidates(self, episodes: Sequence[Episode], seed: int) -> pa.Table:
        """Generate the candidates of all turns of some episodes.

        An episode ends early if a group has no valid response, or the responder does not answer
        its target (``selfPlay.responderShare``).

        Parameters
        ----------
        episodes
            The episodes of one part.
        seed
            The seed of the part. The same episodes and seed give the same rows.

        Returns
        -------
        pyarrow.Table
            One row for each candidate, with the columns of
            :data:`~selfemo_jobs.runtime.schemas.CANDIDATES`.
        """
        states = [initial_state(episode) for episode in episodes]
        rows: list[Row] = []
        for turn in range(self._spec.self_play.turns):
            recognizer_groups, responder_groups = self._generate_turn(states, turn, seed)
            for request, completions in recognizer_groups:
                rows += self._recognizer_rows(request, completions)
            states = []
            for request, completions in responder_groups:
                chosen = self._choose_response(request, completions, seed)
                rows += self._responder_rows(request, completions, chosen)
                if chosen is not None:
                    response = completions[chosen].text.strip()
                    states.append(request.state.with_response(response))
        return pa.Table.from_pylist(rows, schema=CANDIDATES)

    def sampling(self, role: Role, seed: int) -> Sampling:
        """Return the sampling parameters of a role.

        Parameters
        ----------
        role
            The role.
        seed
            The seed of the samples.

        Returns
        -------
        Sampling
            The parameters; ``n`` is the group size.
        """
        settings = self._spec.self_play
        limits = settings.max_tokens
        return Sampling(
            n=settings.group_size,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=limits.recognizer if role is Role.RECOGNIZER else limits.responder,
            stop=self._prompts.stop(role),
            seed=seed,
        )

    def recognizer_request(self, state: DialogueState, turn: int) -> PromptRequest:
        """Return the request that asks the recognizer for the emotions of the last utterance.

        Parameters
        ----------
        state
            The state of the episode.
        turn
            Number of the turn within the episode, from 0.

        Returns
        -------
        PromptRequest
            The request, with the judge's prompts if the judge has a vote.

        Raises
        ------
        BadInput
            If the prompt is too long even without context.
        """
        context = self._spec.dataset.context
        judge = self._spec.reward.judge
        prompt = self._recognizer_prompt(state, turn, context.past, context.future)
        judge_prompts: tuple[tuple[int, ...], ...] = ()
        if judge.weight > 0.0:  # otherwise the judge reads no target
            judge_prompts = tuple(
                self._recognizer_prompt(state, turn, view.past, view.future) for view in judge.views
            )
        past = last_turns(state.turns[:-1], context.past)
        return PromptRequest(state, turn, Role.RECOGNIZER, prompt, past, judge_prompts)

    def responder_request(self, state: DialogueState, turn: int) -> PromptRequest:
        """Return the request that asks the responder to answer the last utterance.

        Parameters
        ----------
        state
            The state of the episode.
        turn
            Number of the turn within the episode, from 0.

        Returns
        -------
        PromptRequest
            The request.

        Raises
        ------
        BadInput
            If the prompt is too long with the last utterance alone.
        """
        context = responder_context(state.turns, self._spec.dataset.context)
        with _add_place_to_errors(state.episode):
            prompt = self._prompts.responder_ids(
                self._engine.tokenizer,
                context,
                state.next_speaker,
                state.episode.intended[turn],
                self._spec.dataset.labels,
                max_tokens=self._spec.model.max_prompt_tokens,
            )
        return PromptRequest(state, turn, Role.RESPONDER, tuple(prompt), context)

    def _recognizer_prompt(
        self, state: DialogueState, turn: int, past: int, future: int
    ) -> tuple[int, ...]:
        """Return the prompt about the last utterance that shows some turns before and after it."""
        *before, target = state.turns
        following: tuple[Utterance, ...] = ()
        if turn == 0:  # the source's next turns do not follow an appended response
            first = state.episode.utterance + 1
            following = state.episode.dialogue.turns[first : first + future]
        with _add_place_to_errors(state.episode):
            prompt = self._prompts.recognizer_ids(
                self._engine.tokenizer,
                last_turns(before, past),
                target.speaker,
                target.text,
                self._spec.dataset.labels,
                following,
                max_tokens=self._spec.model.max_prompt_tokens,
            )
        return tuple(prompt)

    def _generate_turn(
        self, states: Sequence[DialogueState], turn: int, seed: int
    ) -> tuple[list[CompletionGroup], list[CompletionGroup]]:
        """Return the recognizer's and the responder's groups of one turn of all episodes.

        Both roles share one call, so that neither waits until the last completion of the other is
        done. The responder's requests come first because they are longer. The short answers then
        fill the batches at the end.
        """
        requests: list[PromptRequest] = []
        if Role.RESPONDER in self._spec.self_play.roles:
            requests += [
                self.responder_request(state, turn)
                for state in states
                if turn > 0 or self._is_answered(state.episode, seed)
            ]
        responders = len(requests)
        if Role.RECOGNIZER in self._spec.self_play.roles:
            requests += [self.recognizer_request(state, turn) for state in states]
        sampling = {
            role: self.sampling(role, derive_seed(seed, turn, ROLE_STREAMS[role])) for role in Role
        }
        completions = self._engine.generate(
            [request.prompt_ids for request in requests],
            [sampling[request.role] for request in requests],
        )
        groups = list(zip(requests, completions, strict=True))
        return groups[responders:], groups[:responders]

    def _is_answered(self, episode: Episode, seed: int) -> bool:
        """Return whether the responder answers the target of an episode."""
        draw = random.Random(derive_seed(seed, "answered", episode.index)).random()
        return draw < self._spec.self_play.responder_share

    def _choose_response(
        self, request: PromptRequest, completions: Sequence[Completion], seed: int
    ) -> int | None:
        """Return the member of a responder's group that continues the dialogue, if any can."""
        valid = [is_valid_response(completion) for completion in completions]
        index = request.state.episode.index
        draw = derive_seed(seed, "choice", request.turn, index)
        while (chosen := draw_member(valid, draw)) is not None:
            following = request.turn + 1
            if following == self._spec.self_play.turns or self._can_go_on(
                request.state.with_response(completions[chosen].text.strip()), following
            ):
                return chosen
            valid[chosen] = False
        return None

    def _can_go_on(self, state: DialogueState, turn: int) -> bool:
        """Return whether the last utterance of an episode fits a prompt of each role."""
        try:
            self._recognizer_prompt(state, turn, past=0, future=0)
            self.responder_request(state, turn)
        except PromptTooLong:
            return False
        return True

    def _recognizer_rows(
        self, request: PromptRequest, completions: Sequence[Completion]
    ) -> Iterator[Row]:
        target = request.state.turns[-1]
        for member, completion in enumerate(completions):
            parsed = parse_labels(completion.text, self._spec.dataset.labels)
            yield {
                **self._common_columns(request, member, completion),
                "speaker": target.speaker,
                "target": target.text,
                "intended": None,
                "gold": request.gold_labels or None,
                "views": [list(ids) for ids in request.judge_prompts] if member == 0 else [],
                "labels": list(parsed.labels),
                # an answer that was cut off may lack a label
                "well_formed": parsed.well_formed and completion.finished,
                "chosen": False,
            }

    def _responder_rows(
        self, request: PromptRequest, completions: Sequence[Completion], chosen: int | None
    ) -> Iterator[Row]:
        for member, completion in enumerate(completions):
            yield {
                **self._common_columns(request, member, completion),
                "speaker": request.state.next_speaker,
                "target": None,
                "intended": list(request.state.episode.intended[request.turn]),
                "gold": None,
                "views": [],
                "labels": None,
                "well_formed": is_valid_response(completion),
                "chosen": member == chosen,
            }

    def _common_columns(self, request: PromptRequest, member: int, completion: Completion) -> Row:
        """Return the columns that both roles fill in the same way."""
        episode = request.state.episode
        return {
            "group_id": group_id(episode, self._generation, request.turn, request.role),
            "role": request.role.value,
            "generation": self._generation,
            "source": episode.source,
            "dialogue_id": episode.dialogue.id,
            "utterance": episode.utterance,
            "turn": request.turn,
            "member": member,
            "context": [{"speaker": t.speaker, "text": t.text} for t in request.context],
            "prompt_ids": list(request.prompt_ids),
            "completion_ids": list(completion.token_ids),
            "logprobs": list(completion.logprobs),
            "completion": completion.text,
            "finished": completion.finished,
        }


def draw_member(eligible: Sequence[bool], seed: int) -> int | None:
    """Return one member of a group, drawn from the eligible ones with equal chance.

    The choice cannot follow the reward, which is not known yet. It does not follow the policy's
    own preference either, which would make the dialogues less diverse.

    Parameters
    ----------
    eligible
        For each member, whether it may be drawn.
    seed
        The seed of the draw.

    Returns
    -------
    int or None
        Index of the member, or None if no member is eligible.

    Examples
    --------
    >>> draw_member([False, True, False], seed=1)
    1
    >>> draw_member([False, False], seed=1) is None
    True
    """
    members = [member for member, can_be_drawn in enumerate(eligible) if can_be_drawn]
    return random.Random(seed).choice(members) if members else None


@contextmanager
def _add_place_to_errors(episode: Episode) -> Iterator[None]:
    """Add the place of the target to the message of an error about a prompt."""
    try:
        yield
    except PromptTooLong as error:
        place = (
            f"source `{episode.source}` dialogue {episode.dialogue.id} "
            f"utterance {episode.utterance}"
        )
        raise PromptTooLong(f"{place}: {error}") from None
