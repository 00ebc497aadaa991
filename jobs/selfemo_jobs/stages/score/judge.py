"""The frozen judge reads targets and responses, and its answers become label sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from selfemo_api.spec import EvolutionSpec, Role
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.errors import BadInput, BadRows, PromptTooLong
from selfemo_jobs.prompts import parse_labels, prompt_set_of
from selfemo_jobs.rewards.label_sets import Floats, Masks, apportion, encode_label_sets
from selfemo_jobs.stages.score.candidate_groups import Rows, find_groups
from selfemo_jobs.stages.score.scoring import JudgePredictions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from selfemo_jobs.acceleration.prompt_states import PromptStates
    from selfemo_jobs.engines.interface import TextEngine

#: Token ids of a prompt.
Prompt = tuple[int, ...]
#: Stands for the prompt of an empty response, and of one that is too long for a prompt even without
#: context. The judge does not read it, and its label sets are empty: it expresses nothing.
EMPTY_PROMPT: Prompt = ()
#: The number of readings that stand for exact probabilities (``reward.judge.samples: 0``). Their
#: shares are within 1/256 of the probabilities.
EXACT_READINGS = 256


def reading_tokens(
    spec: EvolutionSpec, tokenizer: PreTrainedTokenizerBase, *, label_sets: bool
) -> int:
    """Return the largest number of tokens of a reading of the judge.

    ``reward.judge.maxTokens`` may end a reading after its first label; 0 stands for the tokens of
    the longest label. If utterances have several labels, that would hide the others from the
    consensus. The limit of the recognizer's answers is then the least.

    Parameters
    ----------
    spec
        The evolution's spec.
    tokenizer
        The judge's tokenizer.
    label_sets
        Whether a labeled turn of a source has several labels.
    """
    answer = spec.self_play.max_tokens.recognizer
    limit = spec.reading_tokens
    if spec.reward.judge.max_tokens == 0:
        lengths = prompt_set_of(spec.model).label_tokens(tokenizer, spec.dataset.labels)
        limit = min(answer, max(lengths.values()))
    return max(limit, answer) if label_sets else limit


def label_beginnings(
    tokenizer: PreTrainedTokenizerBase, spec: EvolutionSpec
) -> list[tuple[int, ...]]:
    """Return the first tokens of the answer with each label, as many as tell it from the others.

    Parameters
    ----------
    tokenizer
        The judge's tokenizer.
    spec
        The evolution's spec.

    Returns
    -------
    list of tuple
        Token ids in the order of the labels. None is the beginning of another one. A label whose
        tokens are the beginning of another one's has the end of its answer, too.
    """
    encoded = prompt_set_of(spec.model).label_answers(tokenizer, spec.dataset.labels)
    answers = [tuple(answer) for answer in encoded]
    return [_own_beginning(answer, answers) for answer in answers]


def _own_beginning(answer: tuple[int, ...], answers: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shortest beginning of an answer that no other answer has."""
    others = [other for other in answers if other != answer]
    for count in range(1, len(answer)):
        if all(other[:count] != answer[:count] for other in others):
            return answer[:count]
    return answer


def exact_shares(
    engine: TextEngine, spec: EvolutionSpec, prompts: Sequence[Sequence[int]]
) -> Floats:
    """Return the probability of each label after each prompt, relative to the other labels.

    It is the probability that an answer begins with the label: the share of readings that name the
    label first, if infinitely many are sampled at temperature 1.

    Parameters
    ----------
    engine
        The engine with the judge loaded.
    spec
        The evolution's spec, for prompts and labels.
    prompts
        The token ids of each prompt.

    Returns
    -------
    numpy.ndarray
        Shape (prompts, labels). Each row has the sum 1.

    Raises
    ------
    BadInput
        If a probability is not finite.
    """
    labels = spec.dataset.labels
    if not prompts:
        return np.zeros((0, len(labels)))
    logprobs = np.array(engine.score(prompts, label_beginnings(engine.tokenizer, spec)), np.float64)
    if not np.isfinite(logprobs.max(axis=1)).all():
        raise BadInput(
            "the judge's probabilities of the labels are not finite: the model is damaged, or the "
            "precision of `selfPlay.engineArgs` is too low for it"
        )
    shares = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


class JudgeReader:
    """Lets the judge read the targets and the responses of parts.

    Parameters
    ----------
    engine
        The engine with the judge loaded.
    spec
        The evolution's spec, for prompts, labels and sampling.
    label_sets
        Whether a labeled turn of a source has several labels, see :func:`reading_tokens`.

    Raises
    ------
    BadInput
        If turns have several labels, and the spec asks for the probability of each label.
    """

    def __init__(
        self, engine: TextEngine, spec: EvolutionSpec, *, label_sets: bool = False
    ) -> None:
        if label_sets and spec.reward.judge.samples == 0:
            raise BadInput(
                "`overrides.reward.judge.samples: 0` requires one label for each utterance, but an "
                "utterance of a source has several: set it to 1 or more"
            )
        self._engine = engine
        self._spec = spec
        self._max_tokens = reading_tokens(spec, engine.tokenizer, label_sets=label_sets)
        self._prompts = prompt_set_of(spec.model)
        self._states: PromptStates | None = None

    @property
    def max_tokens(self) -> int:
        """The largest number of tokens of a reading."""
        return self._max_tokens

    def use_states(self, states: PromptStates) -> None:
        """Read targets through the kept states of the engine.

        Parameters
        ----------
        states
            The states that the engine uses. Those of new targets are added to it.
        """
        self._states = states

    def read(self, table: pa.Table, seed: int, uri: str) -> JudgePredictions:
        """Return the judge's readings of one part.

        The judge reads a target in each view of the spec. Without views it reads the same prompt as
        the group. It reads a response as its speaker's next turn after the same context. Equal
        prompts are read once, so that equal responses get equal rewards.

        Parameters
        ----------
        table
            The candidates of the part (:data:`selfemo_jobs.runtime.schemas.CANDIDATES`).
        seed
            The seed of the judge's samples for this part.
        uri
            URI of the part, for error messages.

        Returns
        -------
        JudgePredictions
            The label sets of all readings.

        Raises
        ------
        BadRows
            If a group is incomplete, or a row lacks prompts for the views.
        """
        spec = self._spec
        groups = find_groups(table, spec.self_play.group_size, uri)
        prompts: list[Prompt] = []
        judge_votes = spec.reward.judge.weight > 0.0
        if judge_votes:
            prompts += self._target_prompts(table, groups.recognizer[:, 0], uri)
        targets = len(prompts)
        if self._states is not None:
            self._states.read(prompts)
        prompts += self._response_prompts(table, groups.responder)
        views, size = max(1, len(spec.reward.judge.views)), spec.self_play.group_size
        of_prompts = self._readings(prompts[:targets], views, prompts[targets:], seed)
        return JudgePredictions(
            targets=of_prompts[0] if judge_votes else None,
            responses=of_prompts[1].reshape(-1, size, of_prompts[1].shape[-1]),
        )

    def _readings(
        self, targets: Sequence[Prompt], views: int, responses: Sequence[Prompt], seed: int
    ) -> tuple[Masks, Masks]:
        """Return the readings of targets and of responses.

        Parameters
        ----------
        targets
            The prompts of each target in each view: those of the first target, then the second, …
        views
            The number of prompts of a target.
        responses
            The prompt of each response.
        seed
            The seed of the samples.

        Returns
        -------
        tuple
            Masks of shape (targets, readings) and (responses, readings).
        """
        samples = self._spec.reward.judge.samples
        if samples > 0:
            label_sets = self._read_label_sets([*targets, *responses], seed)
            of_targets, of_responses = np.split(label_sets, [len(targets)])
            return of_targets.reshape(-1, views * samples), of_responses
        prompts = list(dict.fromkeys(p for p in (*targets, *responses) if p != EMPTY_PROMPT))
        shares = exact_shares(self._engine, self._spec, prompts)
        place = {prompt: row for row, prompt in enumerate(prompts)}
        of_views = shares[[place[prompt] for prompt in targets]]
        mean = of_views.reshape(-1, views, len(self._labels)).mean(axis=1)
        # an empty response expresses nothing: its readings are empty
        read = np.array([prompt != EMPTY_PROMPT for prompt in responses], np.bool_)
        response_shares = np.full((len(responses), len(self._labels)), 1.0 / len(self._labels))
        response_shares[read] = shares[[place[p] for p in responses if p != EMPTY_PROMPT]]
        of_responses = apportion(response_shares, EXACT_READINGS)
        return apportion(mean, EXACT_READINGS), of_responses * read[:, np.newaxis]

    def _target_prompts(self, table: pa.Table, rows: Rows, uri: str) -> list[Prompt]:
        """Return the prompts of each target: those of the first group, then the second, …"""
        views = len(self._spec.reward.judge.views)
        if not views:
            return [tuple(table["prompt_ids"][int(row)].as_py()) for row in rows]
        prompts: list[Prompt] = []
        for row in rows:
            view_prompts = table["views"][int(row)].as_py()
            if len(view_prompts) != views:
                raise BadRows(
                    f"{uri}: row {int(row) + 1}: `views` has {len(view_prompts)} prompts where "
                    f"`overrides.reward.judge.views` has {views}"
                )
            prompts += [tuple(prompt) for prompt in view_prompts]
        return prompts

    @property
    def _labels(self) -> Sequence[str]:
        return self._spec.dataset.labels

    def _response_prompts(self, table: pa.Table, rows: Rows) -> list[Prompt]:
        """Return one prompt for each response, group after group."""
        past = self._spec.dataset.context.past
        prompts = []
        for group in rows:
            turns = table["context"][int(group[0])].as_py()
            shown = turns[max(0, len(turns) - past) :]
            context = [Utterance(turn["speaker"], turn["text"]) for turn in shown]
            speaker = table["speaker"][int(group[0])].as_py()
            for row in group:
                text = table["completion"][int(row)].as_py().strip()
                prompts.append(self._prompt(context, speaker, text) if text else EMPTY_PROMPT)
        return prompts

    def _prompt(self, context: Sequence[Utterance], speaker: str, text: str) -> Prompt:
        try:
            ids = self._prompts.recognizer_ids(
                self._engine.tokenizer,
                context,
                speaker,
                text,
                self._spec.dataset.labels,
                max_tokens=self._spec.model.max_prompt_tokens,
            )
        except PromptTooLong:
            return EMPTY_PROMPT
        return tuple(ids)

    def _read_label_sets(self, prompts: Sequence[Prompt], seed: int) -> Masks:
        """Return the label sets that the judge names for each prompt; shape (prompts, samples)."""
        spec = self._spec
        samples = spec.reward.judge.samples
        distinct = list(dict.fromkeys(prompt for prompt in prompts if prompt != EMPTY_PROMPT))
        sampling = Sampling(
            n=samples,
            temperature=spec.self_play.temperature,
            top_p=spec.self_play.top_p,
            max_tokens=self._max_tokens,
            stop=self._prompts.stop(Role.RECOGNIZER),
            seed=seed,
        )
        groups = self._engine.generate(distinct, sampling) if distinct else []
        labels = spec.dataset.labels
        readings: dict[Prompt, list[tuple[str, ...]]] = {EMPTY_PROMPT: [()] * samples}
        for prompt, completions in zip(distinct, groups, strict=True):
            readings[prompt] = [parse_labels(c.text, labels).labels for c in completions]
        label_sets = [names for prompt in prompts for names in readings[prompt]]
        return encode_label_sets(label_sets, labels).reshape(-1, samples)
