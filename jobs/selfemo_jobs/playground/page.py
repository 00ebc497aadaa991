"""The page: a dialogue, its emotions by one or two models, and replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import gradio

from selfemo_jobs.errors import StageError
from selfemo_jobs.playground.example_dialogues import EXAMPLES
from selfemo_jobs.playground.models import PlaygroundModel, parse_turns
from selfemo_jobs.playground.turn_html import CSS, note_html, replies_html, turns_html

T = TypeVar("T")
TITLE = "selfemo playground"
#: The theme uses fonts of the machine: nothing is loaded from elsewhere.
_FONTS = ("system-ui", "sans-serif")
#: The replies of each model.
_REPLIES = 4


def build_page(
    models: Sequence[PlaygroundModel],
    *,
    report_path: str | None = None,
    examples: Mapping[str, str] = EXAMPLES,
) -> gradio.Blocks:
    """Return the page.

    Parameters
    ----------
    models
        The model, and after it the one that it is compared with, if any.
    report_path
        The path at which this server has the report of the run. None: there is no report.
    examples
        The text of each dialogue that can be picked, by its name.
    """
    first = models[0]
    labels = first.description.labels
    initial = next(iter(examples.values()), "")
    page: gradio.Blocks = gradio.Blocks(title=TITLE, analytics_enabled=False)
    with page:
        gradio.Markdown(_introduction(models, report_path))
        with gradio.Row():
            with gradio.Column():
                picked = gradio.Dropdown(
                    list(examples), value=next(iter(examples), None), label="Pick a dialogue"
                )
                text = gradio.Textbox(
                    initial, lines=8, max_lines=16, label="Or paste one, with one turn per line"
                )
                read = gradio.Button("Recognize emotions", variant="primary")
            with gradio.Column():
                emotion = gradio.Dropdown(labels, value=labels[0], label="Emotion of the reply")
                seed = gradio.Number(0, label="Seed", precision=0, minimum=0)
                reply = gradio.Button("Write replies")
        readings = _outputs(models, "Emotions")
        replies = _outputs(models, "Replies")
        picked.change(lambda name: examples.get(name, ""), picked, text, show_progress="hidden")
        read.click(_reader(models), text, readings)
        reply.click(_replier(models), [text, emotion, seed], replies)
    return page


def launch_options() -> dict[str, Any]:
    """Return the options with which the page is started: its look, and nothing from elsewhere."""
    theme = gradio.themes.Base(font=list(_FONTS), font_mono=["ui-monospace", "monospace"])
    return {
        "theme": theme,
        "css": CSS,
        "footer_links": [],
        "enable_monitoring": False,
        "quiet": True,
    }


def _introduction(models: Sequence[PlaygroundModel], report_path: str | None) -> str:
    lines = [f"# {TITLE}"]
    for model in models:
        scores = ", ".join(f"{s.source} {s.weighted_f1:.4f}" for s in model.description.scores[:4])
        figures = f": weighted F1 on {scores}" if scores else ""
        lines.append(f"- {model.name}{figures}")
    if report_path is not None:
        lines.append(f"\n[Report of the run]({report_path})")
    return "\n".join(lines)


def _outputs(models: Sequence[PlaygroundModel], title: str) -> list[gradio.HTML]:
    """Add an output for each model, side by side where the page is wide."""
    outputs = []
    with gradio.Row():
        for model in models:
            with gradio.Column(min_width=280):
                gradio.Markdown(f"### {title}: {model.name}")
                outputs.append(gradio.HTML())
    return outputs


def _reader(models: Sequence[PlaygroundModel]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        turns = _checked(partial(parse_turns, text))
        readings = [_checked(partial(model.read, turns)) for model in models]
        others = readings[1] if len(readings) > 1 else ()
        labels = models[0].description.labels
        pages = [turns_html(readings[0], labels, others)]
        pages += [turns_html(r, labels, readings[0]) for r in readings[1:]]
        return pages

    return read


def _replier(models: Sequence[PlaygroundModel]) -> Callable[[str, str, float], list[str]]:
    def write(text: str, emotion: str, seed: float) -> list[str]:
        turns = _checked(partial(parse_turns, text))
        pages = []
        for model in models:
            if emotion not in model.description.labels:
                pages.append(note_html(f"{model.name} does not support the emotion {emotion}"))
                continue
            write_replies = partial(
                model.reply, turns, emotion, count=_REPLIES, seed=int(seed or 0)
            )
            speaker, replies = _checked(write_replies)
            pages.append(replies_html(speaker, replies, emotion, model.description.labels))
        return pages

    return write


def _checked(work: Callable[[], T]) -> T:
    """Return the result of some work. What a person can fix is shown on the page."""
    try:
        return work()
    except (StageError, ValueError) as error:
        raise gradio.Error(str(error), print_exception=False) from None
