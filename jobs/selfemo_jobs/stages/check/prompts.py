"""Whether prompts can be made, and answers be read, for the labels and the dialogues of a spec."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, NamedTuple

from jinja2 import TemplateError

from selfemo_api.dataset_labels import label_key
from selfemo_api.spec import EvolutionSpec, Role, Use
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.errors import BadInput, error_line
from selfemo_jobs.prompts import (
    PromptSet,
    RenderedPrompt,
    parse_labels,
    prompt_set_names,
)
from selfemo_jobs.prompts.prompt_date import strftime_now
from selfemo_jobs.rewards.word_units import normalize_answer
from selfemo_jobs.runtime.stage_prompts import load_prompts
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.sources import ReadSource
from selfemo_jobs.stages.check.storage import Reader

#: An example, which must be in the prompt that is made of it.
_TARGET = Utterance("Ben", "Hurry up then!")
#: A tag that opens or closes a block of reasoning, as `<think>` or `[/THINK]`.
_REASONING = re.compile(
    r"(?P<begin><\|(?:begin|start)_of_(?:thought|think|thinking|reasoning)\|>)"
    r"|(?P<end><\|end_of_(?:thought|think|thinking|reasoning)\|>)"
    r"|[<\[](?P<close>/?)(?:\|?\w+[:_])?"
    r"(?:think|thinking|thought|thoughts|reason|reasoning|reflection|scratchpad|analysis)\|?[>\]]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PromptContext:
    """What prompts are made of."""

    spec: EvolutionSpec
    prompts: PromptSet
    tokenizer: Any
    """The model's tokenizer, of Transformers or as light as it."""

    def recognizer(self, turn: Utterance, context: Sequence[Utterance] = ()) -> RenderedPrompt:
        """Return the recognizer's prompt for a turn."""
        labels = self.spec.dataset.labels
        return self.prompts.recognizer_prompt(context, turn.speaker, turn.text, labels)

    def responder(
        self, speaker: str, label: str, context: Sequence[Utterance] = ()
    ) -> RenderedPrompt:
        """Return the responder's prompt for an emotion."""
        return self.prompts.responder_prompt(context, speaker, (label,), self.spec.dataset.labels)

    def tokens(self, prompt: RenderedPrompt) -> int:
        """Return the number of tokens of a prompt."""
        return len(self.prompts.encode(self.tokenizer, prompt))


def read_prompts(spec: EvolutionSpec, reader: Reader, findings: Findings) -> PromptSet | None:
    """Return the prompt set of a run; None, and a problem, if it cannot be used.

    Parameters
    ----------
    spec
        The resolved spec.
    reader
        What a file on S3 is read with.
    findings
        The problems are added to it.
    """
    model = spec.model
    if reader.skips(model.prompts):
        return None
    # texts of the spec alone can be the cause where the set itself is a built-in one
    own_texts = bool(model.prompt_templates) and model.prompts in prompt_set_names()
    with findings.collecting("model.promptTemplates" if own_texts else "model.prompts"):
        return load_prompts(model, reader.store)
    return None


def check_chat_template(made: PromptContext, findings: Findings) -> bool:
    """Return whether the model's chat template fits the prompt set.

    Parameters
    ----------
    made
        What prompts are made of.
    findings
        The problems are added to it.
    """
    if not made.prompts.chat:
        return True
    if not made.tokenizer.chat_template:
        findings.problem(
            "model.prompts",
            f"{made.prompts.name} is for chats, but the model's tokenizer has no chat template: "
            "use `compact-v1`",
        )
        return False
    message = [{"role": "user", "content": _TARGET.text}]
    try:
        start, whole = (
            made.tokenizer.apply_chat_template(
                message,
                add_generation_prompt=answer,
                tokenize=False,
                enable_thinking=False,
                strftime_now=strftime_now,
            )
            for answer in (False, True)
        )
    except (TemplateError, TypeError, ValueError) as error:
        findings.problem(
            "model.prompts",
            f"the model's chat template rejects a user message: {error_line(error)}",
        )
        return False
    if _TARGET.text not in whole:
        findings.problem("model.prompts", "the model's chat template omits the user message")
        return False
    tag = open_reasoning(whole.removeprefix(start))
    if tag:
        findings.problem(
            "model.uri",
            f"the model's chat template opens a reasoning block (`{tag}`) before each answer, "
            "and does not close it with `enable_thinking=False`: use a model that answers "
            "immediately, or a copy with another chat template",
        )
    return not tag


def open_reasoning(text: str) -> str:
    r"""Return the tag of a block of reasoning that a text opens and does not close; or nothing.

    Parameters
    ----------
    text
        What a chat template adds before an answer.

    Examples
    --------
    >>> open_reasoning("<|im_start|>assistant\n<think>\n")
    '<think>'
    >>> open_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    ''
    """
    tags: list[str] = []
    for match in _REASONING.finditer(text):
        if match["close"] or match["end"]:
            del tags[-1:]
        else:
            tags.append(match[0])
    return tags[0] if tags else ""


def check_labels(spec: EvolutionSpec, prompts: PromptSet, findings: Findings) -> None:
    """Find labels that cannot be told apart in answers.

    Parameters
    ----------
    spec
        The resolved spec.
    prompts
        The prompt set, which gives an answer its form.
    findings
        The problems are added to it.
    """
    labels = spec.dataset.labels
    if min(len(set(map(key, labels))) for key in (label_key, normalize_answer)) < len(labels):
        return  # this is a problem already
    stops, before = prompts.stop(Role.RECOGNIZER), len(findings.problems)
    for label in labels:
        answer = prompts.recognizer_text([label])
        cut = min((at for stop in stops if (at := answer.find(stop)) >= 0), default=len(answer))
        parsed = parse_labels(answer[:cut], labels)
        if parsed.labels != (label,) or not parsed.well_formed:
            read = ", ".join(f"`{name}`" for name in parsed.labels) or "no label"
            findings.problem(
                "dataset.labels",
                f"the answer `{label}` is parsed as {read}: rename the label, and map it in "
                "`dataset.labelMap`",
            )
    if len(findings.problems) > before:
        return
    confused = [
        f"`{first}` and `{second}`"
        for first, second in permutations(labels, 2)
        if set(parse_labels(prompts.recognizer_text([first, second]), labels).labels)
        != {first, second}
    ]
    if confused:
        more = f" (and {len(confused) - 3} more)" if len(confused) > 3 else ""
        findings.problem(
            "dataset.labels",
            f"an answer with {', or with '.join(confused[:3])}{more} is not parsed as both: "
            "rename one of them",
        )


def check_answer_lengths(made: PromptContext, findings: Findings) -> None:
    """Find labels that are longer than an answer may be.

    Parameters
    ----------
    made
        What prompts are made of.
    findings
        The problems are added to it.
    """
    spec, prompts = made.spec, made.prompts
    lengths = prompts.label_tokens(made.tokenizer, spec.dataset.labels)
    longest = max(lengths, key=lambda label: lengths[label])
    limits = {"selfPlay.maxTokens.recognizer": spec.self_play.max_tokens.recognizer}
    judge = spec.reward.judge
    judge_reads = judge.weight > 0.0 or Role.RESPONDER in spec.self_play.roles
    if judge.max_tokens and judge_reads:  # 0: as many as the longest label has
        limits["reward.judge.maxTokens"] = judge.max_tokens
    for field, limit in limits.items():
        if lengths[longest] > limit:
            findings.problem(
                field,
                f"is {limit}, but the label `{longest}` has {lengths[longest]} tokens of this "
                f"model: set {lengths[longest]} or more",
            )


def check_prompt_lengths(
    made: PromptContext, sources: Sequence[ReadSource], findings: Findings
) -> None:
    """Find utterances whose prompt is too long even without any context, for each role.

    A prompt has at most as many tokens as bytes, and those that its template adds. Only the prompts
    that could be too long are tokenized.

    Parameters
    ----------
    made
        What prompts are made of.
    sources
        The sources with their dialogues.
    findings
        The problems are added to it.
    """
    limit = made.spec.model.max_prompt_tokens
    longest = _longest_prompts(made, sources, lambda turn, _: made.recognizer(turn))
    if longest.tokens > limit:
        findings.problem(
            "model.maxPromptTokens",
            f"is {limit}, but {longest.too_long} of {longest.total} prompts are longer even "
            f"without context (the longest: {longest.place}, {longest.tokens} tokens): set "
            f"{longest.tokens} or more, or split the utterances",
        )
    if Role.RESPONDER in made.spec.self_play.roles:
        fits = _check_responder(made, findings)
        if fits and longest.tokens <= limit:
            _check_answered(made, sources, findings)


class _LongestPrompts(NamedTuple):
    """The prompts about single utterances that are too long."""

    tokens: int = 0
    """The tokens of the longest one; 0 if none is too long."""
    place: str = ""
    """Its dialogue and source."""
    too_long: int = 0
    """How many are too long."""
    total: int = 0
    """How many there are."""


def _longest_prompts(
    made: PromptContext,
    sources: Sequence[ReadSource],
    prompt_of: Callable[[Utterance, str], RenderedPrompt],
) -> _LongestPrompts:
    """Return the prompts about each utterance of some sources that are too long.

    A prompt is made of the utterance and the longest name of a speaker of its dialogue.
    """
    limit, longest, place, count, total = made.spec.model.max_prompt_tokens, 0, "", 0, 0
    added = made.tokens(prompt_of(_TARGET, _TARGET.speaker))
    for source in sources:
        for dialogue in source.dialogues:
            speaker = max((turn.speaker for turn in dialogue.turns), key=len, default="")
            for turn in dialogue.turns:
                total += 1
                prompt = prompt_of(turn, speaker)
                text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
                if len(text.encode()) + added <= limit:
                    continue
                tokens = made.tokens(prompt)
                count += tokens > limit
                if tokens > max(longest, limit):
                    longest = tokens
                    place = f"dialogue {dialogue.id} of source `{source.source.name}`"
    return _LongestPrompts(longest, place, count, total)


def _check_answered(made: PromptContext, sources: Sequence[ReadSource], findings: Findings) -> None:
    """Find utterances that the responder's prompt cannot show, although it answers them.

    The responder has a speaker of the same dialogue. It answers no evaluation source but the
    selection dataset.
    """
    spec = made.spec
    answered = [
        source
        for source in sources
        if source.source.use is not Use.EVALUATION or source.source.name == spec.selection_dataset
    ]
    label = max(spec.dataset.labels, key=len)
    limit = spec.model.max_prompt_tokens
    longest = _longest_prompts(
        made, answered, lambda turn, speaker: made.responder(speaker, label, (turn,))
    )
    if longest.tokens > limit:
        findings.problem(
            "model.maxPromptTokens",
            f"is {limit}, but {longest.too_long} of {longest.total} utterances do not fit in the "
            f"responder's prompt, which responds to them (the longest: {longest.place}, "
            f"{longest.tokens} tokens): set {longest.tokens} or more, or split the utterances",
        )


def _check_responder(made: PromptContext, findings: Findings) -> bool:
    """Find what the responder's prompts lack, and return whether they fit without any context."""
    spec, limit = made.spec, made.spec.model.max_prompt_tokens
    if spec.dataset.context.past == 0 and spec.training.imitation > 0.0:
        findings.warning(
            "dataset.context.past",
            "is 0, so the responder imitates no human turn: set 1 or more",
        )
    prompts = (made.responder(_TARGET.speaker, label) for label in made.spec.dataset.labels)
    try:
        longest = max(made.tokens(prompt) for prompt in prompts)
    except BadInput:
        return False  # the chat template, which has a problem of its own
    said = spec.self_play.max_tokens.responder
    response = Utterance(_TARGET.speaker, " ".join(["so"] * said))  # a token for each word
    if made.tokens(made.recognizer(response)) > limit:
        findings.warning(
            "model.maxPromptTokens",
            f"is {limit}: a response of {said} tokens (`overrides.selfPlay.maxTokens.responder`) "
            "would not fit in a judge prompt. A response that does not fit counts as expressing no "
            "emotion",
        )
    if longest > limit:
        findings.problem(
            "model.maxPromptTokens",
            f"is {limit}, but the responder's prompt has {longest} tokens even without context: "
            f"set {longest} or more",
        )
    return longest <= limit
