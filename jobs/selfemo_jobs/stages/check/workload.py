"""What a run has to read: numbers of utterances, and mean lengths of prompts and answers.

Lengths are counted on a sample of the utterances, with the model's tokenizer and the run's prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

import numpy as np

from selfemo_api.api_model import ApiModel
from selfemo_api.spec import EvolutionSpec, Role, Use, View
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.dialogue_store import labeled_counts, turn_counts
from selfemo_jobs.stages.check.prompts import PromptContext
from selfemo_jobs.stages.check.sources import ReadSource

#: Dialogues of each source whose prompts are counted, and utterances of each: the mean length is
#: then known to a few percent.
_SAMPLE, _UTTERANCES = 40, 3


class Workload(ApiModel):
    """The numbers that the cost of a run follows from. Lengths are means, in tokens."""

    dialogues: int
    """The number of dialogues that a generation plays."""
    episodes: int
    """The number of target utterances of a generation."""
    evaluated: int
    """The number of labeled utterances of all evaluation sources."""
    selection: int
    """The number of labeled utterances of the selection dataset."""
    labeled: int
    """The number of labeled utterances to learn from."""
    recognizer_prompt: float
    """The recognizer's prompt, as the policy reads it."""
    responder_prompt: float
    """The responder's prompt."""
    views: list[float]
    """The prompt of each view of the judge. Empty: the judge reads the recognizer's prompt."""
    response_prompt: float
    """The prompt with which the judge reads a response."""
    answer: float
    """A recognizer's answer, with its end."""
    label: float
    """The longest label, which a reading of the judge may be limited to."""
    response: float
    """A response, with its end."""


def count_workload(made: PromptContext, sources: Sequence[ReadSource]) -> Workload:
    """Return the numbers that the cost of a run follows from.

    Parameters
    ----------
    made
        What prompts are made of.
    sources
        The sources that could be read, with at least one that self-play starts from.
    """
    spec = made.spec
    played = [s for s in sources if s.source.use is not Use.EVALUATION]
    targets = np.concatenate([turn_counts(s.dialogues) for s in played])
    drawn = drawn_dialogues(spec, played)
    per_dialogue = float(np.minimum(targets, spec.self_play.targets_per_dialogue).mean())
    labels = {s.source.name: int(labeled_counts(s.dialogues).sum()) for s in sources}
    evaluated = {s.source.name for s in sources if s.source.use is Use.EVALUATION}
    sample = [place for s in played for place in _sample(s.dialogues)]
    context = spec.dataset.context
    own = View(past=context.past, future=context.future)
    views = [fmean(_recognizer(made, sample, view)) for view in spec.reward.judge.views]
    lengths = made.prompts.label_tokens(made.tokenizer, spec.dataset.labels)
    responder = Role.RESPONDER in spec.self_play.roles
    return Workload(
        dialogues=drawn,
        episodes=round(drawn * per_dialogue),
        evaluated=sum(labels[name] for name in evaluated),
        selection=labels.get(spec.selection_dataset, 0),
        labeled=sum(labels[s.source.name] for s in sources if s.source.use is Use.LABELED),
        recognizer_prompt=_rounded(fmean(_recognizer(made, sample, own))),
        responder_prompt=_rounded(fmean(_responder(made, sample))) if responder else 0.0,
        views=[_rounded(view) for view in views],
        response_prompt=_rounded(
            fmean(_recognizer(made, sample, View(past=context.past))) if responder else 0.0
        ),
        answer=_rounded(fmean(lengths.values()) + 1),
        label=float(max(lengths.values())),
        response=_rounded(fmean(_responses(made, sample))) if responder else 0.0,
    )


def drawn_dialogues(spec: EvolutionSpec, played: Iterable[ReadSource]) -> int:
    """Return the number of dialogues that a generation draws.

    Parameters
    ----------
    spec
        The resolved spec.
    played
        The sources that self-play reads.
    """
    own = [(s.source.sample, len(s.dialogues)) for s in played]
    shared = sum(count for sample, count in own if sample is None)
    limit = spec.self_play.dialogues
    drawn = shared if limit is None else min(limit, shared)
    return drawn + sum(min(sample, count) for sample, count in own if sample is not None)


def _sample(dialogues: Sequence[Dialogue]) -> Iterator[tuple[Dialogue, int]]:
    """Yield utterances that are spread over some dialogues, which are spread over a source."""
    for number in np.linspace(0, len(dialogues) - 1, min(_SAMPLE, len(dialogues))).astype(int):
        dialogue = dialogues[int(number)]
        count = min(_UTTERANCES, len(dialogue.turns))
        for index in np.linspace(0, len(dialogue.turns) - 1, count).astype(int):
            yield dialogue, int(index)


def _recognizer(
    made: PromptContext, sample: Iterable[tuple[Dialogue, int]], view: View
) -> Iterator[int]:
    """Yield the lengths of the recognizer's prompts in a view."""
    spec = made.spec
    for dialogue, index in sample:
        turn = dialogue.turns[index]
        prompt = made.prompts.recognizer_prompt(
            dialogue.turns[max(0, index - view.past) : index],
            turn.speaker,
            turn.text,
            spec.dataset.labels,
            dialogue.turns[index + 1 : index + 1 + view.future],
        )
        yield min(made.tokens(prompt), spec.model.max_prompt_tokens)


def _responder(made: PromptContext, sample: Iterable[tuple[Dialogue, int]]) -> Iterator[int]:
    """Yield the lengths of the responder's prompts."""
    spec = made.spec
    past, labels = max(1, spec.dataset.context.past), spec.dataset.labels
    for dialogue, index in sample:
        turns = dialogue.turns[max(0, index + 1 - past) : index + 1]
        prompt = made.prompts.responder_prompt(
            turns, dialogue.turns[index].speaker, labels[:1], labels
        )
        yield min(made.tokens(prompt), spec.model.max_prompt_tokens)


def _responses(made: PromptContext, sample: Iterable[tuple[Dialogue, int]]) -> Iterator[int]:
    """Yield the lengths of the utterances as responses."""
    limit = made.spec.self_play.max_tokens.responder
    for dialogue, index in sample:
        text = made.prompts.responder_text(dialogue.turns[index].text)
        yield min(len(made.prompts.encode_completion(made.tokenizer, text)), limit)


def _rounded(value: float) -> float:
    return round(value, 1)
