"""F1 of a model folder on dialogues at hand, without a stage around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfemo_api.results import SourceScore
from selfemo_api.spec import Context, Engine, EvaluationSpec, MaxTokens, ModelSpec
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.engines import open_engine
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.stages.evaluate.metrics import score
from selfemo_jobs.stages.evaluate.predictions import answer_table, answers_of, greedy, questions


def measure(
    folder: Path,
    name: str,
    dialogues: Sequence[Dialogue],
    labels: Sequence[str],
    *,
    context: Context,
    prompts: str,
    max_prompt_tokens: int,
) -> SourceScore:
    """Have the engine Transformers answer every labeled utterance greedily; return the figures.

    They are what the evaluate stage measures as generation 0's, where an evolution has the same
    labels, context and prompts.

    Parameters
    ----------
    folder
        The model's.
    name
        What the source is called, in at most 63 characters.
    dialogues, labels
        With at least one labeled utterance; labels of the set.
    context
        What the recognizer sees around an utterance.
    prompts
        Name of the prompt set.
    max_prompt_tokens
        Longest prompt.

    Raises
    ------
    BadInput
        If a prompt is too long.
    """
    model = ModelSpec(
        uri=folder.absolute().as_uri(), prompts=prompts, max_prompt_tokens=max_prompt_tokens
    )
    asked = questions(dialogues, labels, context, model, load_tokenizer(folder))
    sampling = greedy(prompts, MaxTokens().recognizer)
    engine = open_engine(
        Engine.TRANSFORMERS,
        folder,
        engine_args={},
        max_model_len=max_prompt_tokens + sampling.max_tokens,
        seed=0,  # greedy: nothing is drawn
    )
    try:
        groups = engine.generate([q.prompt_ids for q in asked], sampling)
    finally:
        engine.close()
    table = answer_table(asked, [group[0] for group in groups], labels)
    resamples = EvaluationSpec().bootstrap
    return score(name, labels, answers_of(table, labels), resamples=resamples, seed=0)
