"""The folder of a model as an OpenAI-compatible server reads it.

It has links to the model's files, and three files of its own: the chat template that builds the
prompts of both roles, the defaults of generation, and the settings of the tokenizer. A server that
loads it gives the recognizer's answers to plain requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.model_description import ModelDescription
from selfemo_api.spec import Role
from selfemo_jobs.errors import BadInput, error_line
from selfemo_jobs.models.end_tokens import end_tokens
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_description import prompt_set_of_description
from selfemo_jobs.models.model_folder import model_files
from selfemo_jobs.models.position_limit import check_prompt_tokens
from selfemo_jobs.prompts import PromptSet
from selfemo_jobs.prompts.serving_template import served_tokenizer, serving_template
from selfemo_jobs.prompts.template_checks import ShownTurn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHAT_TEMPLATE = "chat_template.jinja"
GENERATION_CONFIG = "generation_config.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
#: Text of several dialogues with which the template is compared with the prompt set: enough turns
#: for any context, signs of the template language, and texts that look like the end of a prompt.
_LINES = ("Hi.", 'It {{ is }} "odd"', "{% if x %} <b>&amp;</b>", "你好。", "Emotion: joy", "Later")


@dataclass(frozen=True)
class ServedModel:
    """A folder that a server can load, and what it has to be told."""

    folder: Path
    """The folder."""
    max_model_len: int
    """The most tokens of a prompt and its completion together."""
    template: str
    """The chat template, which is also in the folder."""

    @property
    def template_file(self) -> Path:
        """The file of the chat template."""
        return self.folder / CHAT_TEMPLATE


def write_served_folder(folder: Path, description: ModelDescription, output: Path) -> ServedModel:
    """Write the folder with which a model is served.

    Parameters
    ----------
    folder
        The model's folder. It must remain where it is, because its files are linked to.
    description
        What the model recognizes and how it is prompted.
    output
        The folder to write. It must not exist, or be empty.

    Raises
    ------
    BadInput
        If the model has no chat template that its prompts need, a template cannot build the
        prompts of this model token for token, or the model cannot read prompts as long as its
        description allows.
    """
    limits = description.decoding.max_tokens
    longest = max(limits.recognizer, limits.responder)
    check_prompt_tokens(folder, description.prompts.max_prompt_tokens, longest)
    tokenizer = load_tokenizer(folder)
    prompts = prompt_set_of_description(description)
    served = served_tokenizer(tokenizer, chat=prompts.chat)
    template = serving_template(description, served)
    output.mkdir(parents=True, exist_ok=True)
    own_files = {CHAT_TEMPLATE, GENERATION_CONFIG, _TOKENIZER_CONFIG}
    for path in model_files(folder):
        if path.name not in own_files:
            (output / path.name).symlink_to(path.resolve())
    ends = {*end_tokens(folder, tokenizer), *stop_tokens(tokenizer, prompts)}
    settings = {"eos_token_id": sorted(ends), "max_new_tokens": longest}
    _write_json(output / GENERATION_CONFIG, settings)
    _write_json(
        output / _TOKENIZER_CONFIG,
        {
            **_read_json(folder / _TOKENIZER_CONFIG),
            "split_special_tokens": served.splits_special_tokens,
        },
    )
    (output / CHAT_TEMPLATE).write_text(template, encoding="utf-8")
    check_prompts(output, description, tokenizer)
    max_model_len = description.prompts.max_prompt_tokens + longest
    return ServedModel(output, max_model_len, template)


def stop_tokens(tokenizer: PreTrainedTokenizerBase, prompts: PromptSet) -> frozenset[int]:
    """Return the tokens that end the recognizer's answer: those of its stop texts.

    A server has no default for stop texts, but it has one for tokens. A token counts if its text
    has the stop text, and nothing but blanks before it: it takes no word of the answer away.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    prompts
        The prompt set.
    """
    stops = prompts.stop(Role.RECOGNIZER)
    if not stops:
        return frozenset()
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return frozenset(
        token
        for token, text in enumerate(texts)
        if any(stop in text and not text.partition(stop)[0].strip() for stop in stops)
    )


def check_prompts(
    folder: Path, description: ModelDescription, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Compare the prompts of a served folder with those of the stages, on some dialogues.

    Parameters
    ----------
    folder
        The served folder.
    description
        What the model recognizes and how it is prompted.
    tokenizer
        The tokenizer of the model itself.

    Raises
    ------
    BadInput
        If a prompt differs in a token.
    """
    server = load_tokenizer(folder)
    template = (folder / CHAT_TEMPLATE).read_text(encoding="utf-8")
    for messages, expected in sample_prompts(description, tokenizer):
        try:
            text = server.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        # a chat template may raise any error, also that of a prompt set's own template
        except Exception as error:
            raise BadInput(
                f"the prompts of this model cannot be served: {error_line(error)}"
            ) from error
        if server(text, add_special_tokens=False)["input_ids"] != expected:
            raise BadInput(
                "the prompts of this model cannot be served: a chat template gives "
                f"{text[-200:]!r}, and the stages give {tokenizer.decode(expected)[-200:]!r} (a "
                "template of the prompt set has to print `turn.speaker` and `turn.text`, not a "
                "turn as a whole)"
            )


def sample_prompts(
    description: ModelDescription, tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[dict[str, str]], list[int]]]:
    """Yield the messages of some requests, each with the token ids of the stages' prompt.

    Parameters
    ----------
    description
        What the model recognizes and how it is prompted.
    tokenizer
        The tokenizer of the model itself.
    """
    prompts, context = prompt_set_of_description(description), description.context
    labels, limit = description.labels, 10**6
    count = context.past + context.future + 3
    lines = [_LINES[i % len(_LINES)] for i in range(count)]
    turns = [ShownTurn(("Ann", "Ben <b>")[i % 2], line) for i, line in enumerate(lines)]
    messages = [{"role": "user", "name": turn.speaker, "content": turn.text} for turn in turns]
    for index in {0, count - 1 - context.future, count - 1}:
        target, past = turns[index], turns[max(0, index - context.past) : index]
        future = turns[index + 1 : index + 1 + context.future]
        ids = prompts.recognizer_ids(
            tokenizer, past, target.speaker, target.text, labels, future, max_tokens=limit
        )
        yield [_settings(utterance=str(index)), *messages], ids
        past = turns[: index + 1][-max(1, context.past) :]
        for intended in ((labels[0],), tuple(labels[:2])):
            ids = prompts.responder_ids(tokenizer, past, "Cleo", intended, labels, max_tokens=limit)
            emotion = ", ".join(intended)
            settings = _settings(utterance=str(index), emotion=emotion, speaker="Cleo")
            yield [settings, *messages], ids


def _settings(**lines: str) -> dict[str, str]:
    content = "\n".join(f"{name}: {value}" for name, value in lines.items())
    return {"role": "system", "content": content}


def _read_json(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    document: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _write_json(path: Path, document: dict[str, object]) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True)
    path.write_text(f"{text}\n", encoding="utf-8")
