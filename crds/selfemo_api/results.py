"""Results and errors of stages: the JSON of their termination messages (at most 4 KiB)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfemo_api.api_model import ApiModel
from selfemo_api.stages import Stage
from selfemo_api.text.control_characters import PlainText

#: The maximum size of a termination message. Kubernetes truncates it.
TERMINATION_MESSAGE_BYTES = 4096

#: The metrics of a stage by name, see :mod:`selfemo_api.metrics`.
Metrics = Annotated[dict[PlainText, float], Field(max_length=64)]
#: One value for each label, in the order of `dataset.labels`.
LabelValues = Annotated[list[float], Field(max_length=64)]


class SourceScore(ApiModel):
    """The score on one evaluation source. Lists have the order of `dataset.labels`.

    A source is compared by one label per utterance, or by sets of labels (`evaluation.multiLabel`).
    The metrics for sets are unset if one label is compared.
    """

    source: Annotated[PlainText, Field(max_length=63)]
    """The name of the source."""
    utterances: int
    """The number of utterances of the source."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """The SHA-256 of the source's files, in hexadecimal. Set only for the selection dataset."""
    weighted_f1: float
    """The mean F1 of the labels, weighted by their numbers of utterances, from 0 to 1. An
    unparsable answer counts as the nearest label, as in InstructERC."""
    weighted_f1_low: float | None = None
    """The lower end of the 95% confidence interval of the weighted F1. Unset if no interval was
    computed."""
    weighted_f1_high: float | None = None
    """The upper end of the 95% confidence interval of the weighted F1. Unset if no interval was
    computed."""
    strict_weighted_f1: float
    """The weighted F1, from 0 to 1, if unparsable answers count as wrong."""
    macro_f1: float
    """The mean F1 of all labels that occur in the source, from 0 to 1."""
    accuracy: float
    """The fraction of correct answers, from 0 to 1. If sets are compared, an answer is correct if
    it names exactly the labels of the utterance (subset accuracy)."""
    micro_f1: float | None = None
    """The F1 over all labels of all utterances together, from 0 to 1. Unset if the source is not
    compared by sets."""
    samples_f1: float | None = None
    """The mean F1 of the utterances' sets, from 0 to 1. Unset if the source is not compared by
    sets."""
    jaccard: float | None = None
    """The mean intersection over union of the utterances' sets, from 0 to 1. Unset if the source is
    not compared by sets."""
    labels_per_answer: float | None = None
    """The mean number of labels per predicted set. Unset if the source is not compared by sets."""
    unparsable: float
    """The fraction of answers that name no label, from 0 to 1."""
    label_entropy: float
    """The entropy of the predicted labels divided by log(number of labels), from 0 to 1."""
    f1_by_label: LabelValues = []
    """The F1 of each label, from 0 to 1. Empty if it was left out; the manifest contains it."""
    predicted_shares: LabelValues = []
    """The frequency of each label among all predicted labels. Empty if it was left out; the
    manifest contains it."""


class ExpressionChange(ApiModel):
    """How much more often a generation's responses are classified as the intended emotion than the
    responses of an earlier generation.

    Both generations responded to the same contexts, and the interval is paired by dialogue.
    """

    generation: int
    """The number of the earlier generation."""
    change: float
    """The fraction of responses classified as the intended emotion, minus the fraction of the
    earlier generation, from -1 to 1."""
    low: float | None = None
    """The lower end of the 95% confidence interval of the change. Unset if no interval was
    computed."""
    high: float | None = None
    """The upper end of the 95% confidence interval of the change. Unset if no interval was
    computed."""


class ExpressionScore(ApiModel):
    """How well the responder expresses emotions in its responses to held-out contexts.

    The responder responds to each context once per emotion. The baseline's model, which is frozen,
    classifies the responses.
    """

    source: Annotated[PlainText, Field(max_length=63)]
    """The name of the evaluation source of the contexts: the selection dataset."""
    responses: int
    """The number of responses. Each emotion is intended equally often."""
    dialogues: int
    """The number of dialogues that the contexts are taken from."""
    as_intended: float
    """The fraction of responses for which the judge's most probable emotion is the intended one,
    from 0 to 1."""
    as_intended_low: float | None = None
    """The lower end of the 95% confidence interval of that fraction. Unset if no interval was
    computed."""
    as_intended_high: float | None = None
    """The upper end of the 95% confidence interval of that fraction. Unset if no interval was
    computed."""
    consistency: float
    """The mean probability of a response's most probable emotion according to the judge, from 0 to
    1."""
    diversity: float
    """The number of distinct word pairs in the responses divided by the number of all word pairs
    (distinct-2), from 0 to 1."""
    words: float
    """The mean number of words per response."""
    named: float
    """The fraction of responses that explicitly name the intended emotion, from 0 to 1."""
    well_formed: float
    """The fraction of responses that consist of one complete line with a word, from 0 to 1."""
    human: float | None = None
    """The judge's accuracy on human turns of the same dataset, from 0 to 1, as the mean over the
    emotions, for comparison. Unset if no such turn has a label."""
    human_turns: int = 0
    """The number of these human turns."""
    as_intended_by_label: LabelValues = []
    """The fraction of responses classified as the intended emotion, for each emotion, in the order
    of `dataset.labels`. Empty if it was left out; the manifest contains it."""
    over_baseline: ExpressionChange | None = None
    """The change from generation 0. Unset if there is no earlier generation to compare with."""
    over_best: ExpressionChange | None = None
    """The change from the generation that was the best before. Unset if it is generation 0, or
    there is none to compare with."""


class StageResult(ApiModel):
    """The result of one stage of one generation."""

    stage: Stage
    """The stage."""
    generation: int
    """The number of the generation."""
    manifest: Annotated[str, Field(max_length=2048)]
    """The URI of the stage's manifest."""
    manifest_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The SHA-256 of the manifest, in hexadecimal."""
    rows: int = 0
    """The number of rows in the stage's tables."""
    metrics: Metrics = {}
    """The metrics of the stage, by name."""
    scores: Annotated[list[SourceScore], Field(max_length=16)] = []
    """The scores on the evaluation sources, for Evaluate. The selection dataset is the first."""
    expression: ExpressionScore | None = None
    """How well the responder expresses emotions, for Evaluate. Unset if the responder does not
    play."""
    model_uri: Annotated[str, Field(max_length=2048)] | None = None
    """The URI of the trained model, for WarmStart and Train."""
    label_shares: LabelValues = []
    """The frequency of each emotion in the labeled sources, from 0 to 1, in the order of
    `dataset.labels`, for Check. Empty if there are no labeled sources."""
    seconds: float = 0.0
    """The wall time in seconds of the attempt that produced the result. 0 if it already existed."""
    reused: bool = False
    """Whether the manifest already existed from an earlier attempt."""


class ShardResult(ApiModel):
    """The message of a shard that ended before the others: the stage is not complete."""

    stage: Stage
    """The stage."""
    generation: int
    """The number of the generation."""
    shard: int
    """The number of the shard, from 0."""
    rows: int = 0
    """The number of rows that the shard wrote."""


class FailureMessage(ApiModel):
    """The message of a stage that failed."""

    error: Annotated[PlainText, Field(max_length=2048)]
    """What was wrong, where, and what to do, in one line; for a check, one line per problem."""
    kind: Annotated[PlainText, Field(max_length=64)]
    """The kind of error: `BadInput`, `DamagedResult`, `Unavailable` or `Internal`."""
    damaged: Stage | None = None
    """The earlier stage of the same generation whose result is missing or damaged. Check and
    WarmStart belong to the generation that reads them. Unset if no such result is damaged."""


def encode_message(message: StageResult | ShardResult | FailureMessage) -> str:
    """Return a message as the JSON text of a termination message, shortened to 4 KiB.

    If a result is too long, the lists by label are left out of all scores but the first, and then
    the last scores are left out: the manifest contains them. The list of `expression` is left out
    together with the lists of the scores. If an error is too long, it is truncated.

    Parameters
    ----------
    message
        The message of a stage or of a shard.

    Raises
    ------
    ValueError
        If the message is too long even without these lists and scores.

    Examples
    --------
    >>> encode_message(FailureMessage(error="the disk is full", kind="BadInput"))
    '{"error":"the disk is full","kind":"BadInput"}'
    """
    if isinstance(message, FailureMessage):
        return _failure_text(message)
    text = _dump(message)
    if _fits(text) or not isinstance(message, StageResult):
        return _checked(text)
    without_lists: dict[str, list[float]] = {"f1_by_label": [], "predicted_shares": []}
    scores = [
        score if index == 0 else score.model_copy(update=without_lists)
        for index, score in enumerate(message.scores)
    ]
    expression = message.expression
    if expression is not None:
        expression = expression.model_copy(update={"as_intended_by_label": []})
    for count in range(len(scores), 0, -1):
        changes = {"scores": scores[:count], "expression": expression}
        text = _dump(message.model_copy(update=changes))
        if _fits(text):
            break
    return _checked(text)


def _failure_text(message: FailureMessage) -> str:
    """Return the message of a failure. It is always valid and short enough."""
    error = message.error.encode("utf-8", "replace").decode()  # file names may not be UTF-8
    while not _fits(text := _dump(message.model_copy(update={"error": error}))):
        error = error[: len(error) * 3 // 4]
    return text


def _dump(message: ApiModel) -> str:
    return message.model_dump_json(by_alias=True, exclude_none=True)


def _fits(text: str) -> bool:
    return len(text.encode()) <= TERMINATION_MESSAGE_BYTES


def _checked(text: str) -> str:
    if not _fits(text):
        raise ValueError(f"the termination message is over {TERMINATION_MESSAGE_BYTES} bytes")
    return text


def decode_message(text: str) -> StageResult | ShardResult | FailureMessage | None:
    """Return the message in the text of a termination message, or None if there is none.

    Unknown fields are left out: a stage of a newer version may have written them before a rollback.

    Parameters
    ----------
    text
        The text. It may be cut off, empty, or the text of another program.

    Examples
    --------
    >>> decode_message('{"error":"the disk is full","kind":"BadInput"}').error
    'the disk is full'
    >>> decode_message("Killed") is None
    True
    """
    kinds: tuple[Literal["ignore"] | None, ...] = (None, "ignore")
    for extra in kinds:
        for message_type in (StageResult, ShardResult, FailureMessage):
            try:
                return message_type.model_validate_json(text, extra=extra)
            except ValueError:
                continue
    return None
