"""The responses of a policy to held-out contexts, and a judge's readings of them, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from selfemo_api.spec import EvolutionSpec, Role
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.errors import BadInput, PromptTooLong
from selfemo_jobs.evaluation.expression_tables import READINGS, RESPONSES
from selfemo_jobs.inference.recognizer import Reading, reading_of
from selfemo_jobs.inference.responses import is_valid_response, last_turns, responder_context
from selfemo_jobs.inference.targets import Target, target_prompts
from selfemo_jobs.prompts import prompt_set_of
from selfemo_jobs.stages.evaluate.expression_sample import HeldOutContext, HumanTurn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from selfemo_jobs.engines.interface import TextEngine


def response_sampling(spec: EvolutionSpec, seed: int) -> Sampling:
    """Return how responses are drawn: as self-play draws them, but one for each prompt.

    Parameters
    ----------
    spec
        The evolution's spec.
    seed
        The seed of the draws. It is the same in all generations, so that the difference of two
        generations is less a matter of chance.
    """
    settings = spec.self_play
    return Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens.responder,
        stop=prompt_set_of(spec.model).stop(Role.RESPONDER),
        seed=seed,
    )


def respond(
    engine: TextEngine, spec: EvolutionSpec, contexts: Sequence[HeldOutContext], seed: int
) -> pa.Table:
    """Return the responses of a policy: one to each context for each emotion.

    Parameters
    ----------
    engine
        The engine with the policy.
    spec
        The evolution's spec, for prompts, labels and sampling.
    contexts
        The contexts, at least one.
    seed
        The seed of the draws.

    Returns
    -------
    pyarrow.Table
        The columns are those of :data:`selfemo_jobs.evaluation.expression_tables.RESPONSES`.

    Raises
    ------
    BadInput
        If a prompt is too long even without context.
    """
    labels = spec.dataset.labels
    pairs = [(context, label) for context in contexts for label in labels]
    prompts = [_responder_prompt(engine.tokenizer, spec, *pair) for pair in pairs]
    groups = engine.generate(prompts, response_sampling(spec, seed))
    rows = [
        {
            "dialogue_id": context.dialogue.id,
            "utterance": context.utterance,
            "speaker": context.speaker,
            "intended": label,
            "response": completion.text.strip(),
            "tokens": len(completion.token_ids),
            "well_formed": is_valid_response(completion),
        }
        for (context, label), (completion,) in zip(pairs, groups, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=RESPONSES)


def response_targets(
    responses: pa.Table, dialogues: Sequence[Dialogue], past: int
) -> list[Target | None]:
    """Return each response as its speaker's next turn after the context, as the judge reads it.

    Parameters
    ----------
    responses
        A table with the columns of :data:`selfemo_jobs.evaluation.expression_tables.RESPONSES`.
    dialogues
        The dialogues that the contexts are from.
    past
        The largest number of turns before the response.

    Returns
    -------
    list of Target or None
        None for an empty response: it expresses nothing.
    """
    by_id = {dialogue.id: dialogue for dialogue in dialogues}
    targets: list[Target | None] = []
    for row in responses.to_pylist():
        turns = by_id[row["dialogue_id"]].turns[: row["utterance"] + 1]
        turn = Utterance(row["speaker"], row["response"])
        shown = last_turns(turns, past)
        targets.append(Target(row["dialogue_id"], len(turns), turn, shown) if turn.text else None)
    return targets


def human_targets(turns: Sequence[HumanTurn], past: int) -> list[Target | None]:
    """Return human turns as the judge reads them: with as many earlier turns as a response.

    Parameters
    ----------
    turns
        The human turns.
    past
        The largest number of turns before each of them.
    """
    return [
        Target(
            human.dialogue.id,
            human.utterance,
            human.turn,
            last_turns(human.dialogue.turns[: human.utterance], past),
        )
        for human in turns
    ]


def read_targets(
    engine: TextEngine, spec: EvolutionSpec, targets: Sequence[Target | None]
) -> list[Reading]:
    """Return the probability of each label for some turns. The judge generates nothing.

    A turn that is too long for a prompt even without context is not read.

    Parameters
    ----------
    engine
        The engine with the judge.
    spec
        The evolution's spec, for prompts and labels.
    targets
        The turns. None: there is nothing to read. Equal prompts are read once.

    Returns
    -------
    list of dict
        A reading for each turn; an empty one where there is nothing to read.
    """
    labels = spec.dataset.labels
    prompts = [_recognizer_prompt(engine.tokenizer, spec, target) for target in targets]
    distinct = list(dict.fromkeys(prompt for prompt in prompts if prompt))
    answers = prompt_set_of(spec.model).label_answers(engine.tokenizer, labels)
    scores = engine.score(distinct, answers) if distinct else []
    readings = {
        prompt: reading_of(labels, logprobs)
        for prompt, logprobs in zip(distinct, scores, strict=True)
    }
    return [dict(readings[prompt]) if prompt else {} for prompt in prompts]


def reading_rows(responses: pa.Table, readings: Sequence[Reading]) -> pa.Table:
    """Return the readings of responses as a table.

    Parameters
    ----------
    responses
        The responses, with the columns of
        :data:`selfemo_jobs.evaluation.expression_tables.RESPONSES`.
    readings
        The reading of each response.

    Returns
    -------
    pyarrow.Table
        The columns are those of :data:`selfemo_jobs.evaluation.expression_tables.READINGS`.
    """
    rows = [
        {
            "human": False,
            "dialogue_id": row["dialogue_id"],
            "utterance": row["utterance"],
            "intended": row["intended"],
            **_reading_columns(reading, (row["intended"],)),
        }
        for row, reading in zip(responses.to_pylist(), readings, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=READINGS)


def human_rows(turns: Sequence[HumanTurn], readings: Sequence[Reading]) -> pa.Table:
    """Return the readings of human turns as a table with the same columns.

    A turn with several labels is read right if the reading is one of them.

    Parameters
    ----------
    turns
        The human turns.
    readings
        The reading of each turn.
    """
    rows = [
        {
            "human": True,
            "dialogue_id": human.dialogue.id,
            "utterance": human.utterance,
            "intended": human.turn.labels[0],
            **_reading_columns(reading, human.turn.labels),
        }
        for human, reading in zip(turns, readings, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=READINGS)


def _reading_columns(reading: Reading, right: Sequence[str]) -> dict[str, Any]:
    top = max(reading, key=lambda label: reading[label]) if reading else None
    return {
        "read": top,
        "probabilities": [round(value, 6) for value in reading.values()],
        "as_intended": top in right,
    }


def _responder_prompt(
    tokenizer: PreTrainedTokenizerBase, spec: EvolutionSpec, context: HeldOutContext, label: str
) -> list[int]:
    """Return the prompt of self-play's responder. Raises BadInput, which names the place."""
    try:
        return prompt_set_of(spec.model).responder_ids(
            tokenizer,
            responder_context(context.turns, spec.dataset.context),
            context.speaker,
            [label],
            spec.dataset.labels,
            max_tokens=spec.model.max_prompt_tokens,
        )
    except BadInput as error:
        place = f"dialogue {context.dialogue.id} utterance {context.utterance}"
        raise BadInput(f"{place}: {error}") from None


def _recognizer_prompt(
    tokenizer: PreTrainedTokenizerBase, spec: EvolutionSpec, target: Target | None
) -> tuple[int, ...] | None:
    """Return the prompt about a turn; None without one, or if it is too long even alone."""
    if target is None:
        return None
    limit = spec.model.max_prompt_tokens
    prompts = prompt_set_of(spec.model)
    try:
        return target_prompts([target], spec.dataset.labels, prompts, tokenizer, limit)[0]
    except PromptTooLong:
        return None
