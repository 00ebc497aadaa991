"""The model card (``README.md``) of a model's folder, written from its description alone.

Names, labels and URIs are texts of users: they are shown as code, so that no Markdown or HTML in
them has an effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from selfemo_api.model_description import DESCRIPTION_FILE, ModelDescription
from selfemo_api.results import SourceScore
from selfemo_jobs.models.card_metadata import base_model, front_matter, model_name
from selfemo_jobs.models.markdown_text import code, code_block, table
from selfemo_jobs.models.model_description import prompt_set_of_description
from selfemo_jobs.prompts.prompt_date import PROMPT_DATE

_LIMITS = """\
- The model only reads text. It does not use voice, facial expressions or knowledge of the people.
  Its answers are estimates, and often wrong.
- It answers with the labels above and no others. It makes more errors on topics, groups of
  people or languages that its data does not cover.
- The model of a run is chosen by its F1 on the first evaluation source. Its score there is higher
  than on dialogues that were not used for the selection.
- Do not use it to assess or rank people, or where an error harms someone: in employment,
  education, health, credit, policing or migration."""


@dataclass(frozen=True)
class _Turn:
    """A turn of the example."""

    speaker: str
    text: str


_CONTEXT = (_Turn("Ann", "I lost my keys again."),)
_TARGET = _Turn("Ben", "Not again! We will be late.")


def card_text(description: ModelDescription, *, gguf: str | None = None) -> str:
    """Return the text of a model card. Equal descriptions have equal cards.

    Parameters
    ----------
    description
        The description of the model.
    gguf
        The name of the GGUF file in the folder. None: the weights are safetensors.

    Raises
    ------
    BadInput
        If a prompt of the description cannot be used.
    """
    sections = [
        _introduction(description),
        "## Labels\n\n" + ", ".join(code(label) for label in description.labels),
        "## Scores\n\n" + "\n\n".join(_figures(description)),
        "## Data\n\n" + _data(description),
        "## How to use it\n\n" + "\n\n".join(_usage(description, gguf)),
        "## Limits\n\n" + _LIMITS,
        "## Origin\n\n" + _origin(description),
    ]
    front = front_matter(description, gguf=gguf is not None)
    return f"---\n{front}\n---\n\n" + "\n\n".join(sections) + "\n"


def _introduction(description: ModelDescription) -> str:
    title = f"# {code(model_name(description))}"
    purpose = (
        "This language model recognizes the emotion of each turn of a conversation, and writes "
        "turns that express a given emotion."
    )
    origin = description.origin
    if origin is None:
        return f"{title}\n\n{purpose}"
    base = base_model(description)
    start = f"[{base}](https://huggingface.co/{base})" if base else code(origin.base)
    how = "supervised training" if origin.stage == "WarmStart" else "self-play"
    return (
        f"{title}\n\n{purpose} selfemo trained it from {start}, by {how} in generation "
        f"{origin.generation}."
    )


def _figures(description: ModelDescription) -> Iterator[str]:
    scores = description.scores
    if not scores:
        yield "This model has not been evaluated yet."
        return
    baselines = {score.source: score for score in description.baseline_scores}
    head = ["source", "turns", "weighted F1", "95% interval", "macro F1", "accuracy", "no label"]
    rows = [_figure_row(score) for score in scores]
    if baselines:
        head.append("gain of weighted F1")
        rows = [
            [*row, _gain(s, baselines.get(s.source))] for row, s in zip(rows, scores, strict=True)
        ]
    yield table(head, rows)
    yield (
        f"The first source, {code(scores[0].source)}, decided which generation was promoted. An "
        'answer without a label counts as the nearest label; the column "no label" shows the '
        "fraction of such answers."
    )
    if baselines:
        yield (
            "The gain is the difference from the weighted F1 of the run's baseline, the model "
            "before self-play."
        )
    labels = description.labels
    with_labels = [score for score in scores if len(score.f1_by_label) == len(labels)]
    if with_labels:
        yield "F1 of each label:"
        yield table(
            ["label", *(code(score.source) for score in with_labels)],
            [
                [code(label), *(_number(score.f1_by_label[i]) for score in with_labels)]
                for i, label in enumerate(labels)
            ],
        )


def _figure_row(score: SourceScore) -> list[str]:
    low, high = score.weighted_f1_low, score.weighted_f1_high
    interval = "" if low is None or high is None else f"{_number(low)} to {_number(high)}"
    return [
        code(score.source),
        str(score.utterances),
        _number(score.weighted_f1),
        interval,
        _number(score.macro_f1),
        _number(score.accuracy),
        _number(score.unparsable),
    ]


def _gain(score: SourceScore, baseline: SourceScore | None) -> str:
    return f"{score.weighted_f1 - baseline.weighted_f1:+.3f}" if baseline else ""


def _number(value: float) -> str:
    return f"{value:.3f}"


def _data(description: ModelDescription) -> str:
    dataset = description.dataset
    if dataset is None:
        return "The data of this model is not recorded."
    uses = {
        "SelfPlay": "self-play, without its labels",
        "Labeled": "training, with its labels",
        "Evaluation": "evaluation",
    }
    rows = [
        [code(source.name), uses[source.use.value], code(source.uri)] for source in dataset.sources
    ]
    return table(["source", "used for", "location"], rows)


def _usage(description: ModelDescription, gguf: str | None) -> Iterator[str]:
    if gguf is not None:
        yield (
            f"The model is the file {code(gguf)} for llama.cpp. {code(DESCRIPTION_FILE)} "
            "contains its labels and prompts, which a program must use unchanged."
        )
        yield code_block(f"llama-server -m {json.dumps(gguf)}", "shell")
        return
    yield (
        f"{code(DESCRIPTION_FILE)} contains the labels, the prompts and everything else that "
        "selfemo needs to use this folder on its own:"
    )
    yield code_block("selfemo predict FOLDER dialogues.jsonl", "shell")
    yield "Without selfemo, a prompt must use exactly the same text as in training:"
    yield code_block(_transformers_code(description), "python")


def _transformers_code(description: ModelDescription) -> str:
    """Return a program that asks the recognizer about an example, with Transformers alone."""
    prompts = prompt_set_of_description(description)
    context = _CONTEXT if description.context.past else ()
    most = description.decoding.max_tokens.recognizer
    prompt = prompts.recognizer_prompt(context, _TARGET.speaker, _TARGET.text, description.labels)
    imports = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    if isinstance(prompt, str):
        encode = [
            f"prompt = {json.dumps(prompt, ensure_ascii=False)}",
            'inputs = tokenizer(prompt, return_tensors="pt")',
        ]
    else:
        imports.insert(0, "from datetime import date\n")
        day = PROMPT_DATE  # for a template that prints the date
        encode = [
            f"messages = {json.dumps(prompt, ensure_ascii=False)}",
            "inputs = tokenizer.apply_chat_template(",
            "    messages, add_generation_prompt=True, enable_thinking=False,",
            '    return_dict=True, return_tensors="pt",',
            f"    strftime_now=date({day.year}, {day.month}, {day.day}).strftime,",
            ")",
        ]
    return "\n".join(
        [
            *imports,
            "",
            'folder = "FOLDER"',
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            "model = AutoModelForCausalLM.from_pretrained(folder)",
            *encode,
            "output = model.generate(",
            f"    **inputs, do_sample=False, max_new_tokens={most}",
            ")",
            'answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], '
            "skip_special_tokens=True)",
            "print(answer.strip().splitlines()[0])",
        ]
    )


def _origin(description: ModelDescription) -> str:
    origin = description.origin
    rows: list[list[str]] = []
    if origin is not None:
        rows = [
            ["run", code(origin.run)],
            ["storage", code(origin.storage)],
            ["generation", str(origin.generation)],
            ["stage", code(origin.stage)],
            ["base model", code(origin.base)],
            ["revision of the base model", code(origin.revision or "")],
            ["recipe", code(origin.recipe)],
            ["seed", str(origin.seed)],
            *(
                [f"SHA-256 of the manifest of {code(stage)}", code(digest)]
                for stage, digest in origin.parents.items()
            ),
        ]
    versions = ", ".join(code(f"{name} {text}") for name, text in description.versions.items())
    rows.append(["versions", versions])
    rows += [
        [f"SHA-256 of {code(name)}", code(digest)]
        for name, digest in description.weights_sha256.items()
        if name.endswith((".safetensors", ".gguf"))
    ]
    rows = [row for row in rows if row[1]]
    return table(["what", "value"], rows) if rows else "The origin of this model is not recorded."
