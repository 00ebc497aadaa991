"""``selfemo respond``: replies with an intended emotion, each with the judge's reading."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfemo_api.contract import ExitCode
from selfemo_api.text.control_characters import json_text, printable_lines, visible
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.command_line import add_output_option
from selfemo_jobs.use_commands.prediction_rows import rounded
from selfemo_jobs.use_commands.reply_options import MOST_CONTEXT, label_of
from selfemo_jobs.use_commands.terminal_text import aligned
from selfemo_jobs.use_commands.use_options import (
    add_input_arguments,
    add_model_arguments,
    engine_settings,
    open_model,
    side_by_side,
)

if TYPE_CHECKING:
    from selfemo_jobs.inference import Reply

HELP = "Write replies that express an emotion, and classify each with a judge."

#: The most candidates of a reply.
_MOST_CANDIDATES = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_model_arguments(parser)
    add_input_arguments(parser)
    parser.add_argument("--emotion", required=True, help="the label that the replies express")
    parser.add_argument(
        "--candidates",
        "-n",
        type=int,
        default=4,
        metavar="N",
        help="the number of candidates per reply",
    )
    parser.add_argument(
        "--speaker",
        metavar="NAME",
        help="the speaker of the reply. Default: the speaker before the one who spoke last",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the random seed for sampling"
    )
    parser.add_argument(
        "--judge",
        metavar="MODEL",
        help="the model that classifies the candidates, specified like MODEL. Default: MODEL "
        "itself",
    )
    add_output_option(parser)


@dataclass(frozen=True)
class _Replies:
    """The candidates of the reply to a dialogue."""

    dialogue: str
    speaker: str
    emotion: str
    candidates: Sequence[Reply]

    def to_json(self) -> dict[str, Any]:
        """Return the candidates as an object of JSON."""
        return {
            "dialogue": self.dialogue,
            "speaker": self.speaker,
            "emotion": self.emotion,
            "candidates": [
                {
                    "text": reply.text,
                    "reading": {label: rounded(p) for label, p in reply.reading.items()},
                    "expresses": reply.expresses,
                    "valid": reply.valid,
                }
                for reply in self.candidates
            ],
        }


def run(arguments: argparse.Namespace) -> int:
    """Write replies to the last turn of each dialogue, and return the exit code."""
    from selfemo_jobs.inference.responses import reply_speaker
    from selfemo_jobs.use_commands.model_roles import open_responder
    from selfemo_jobs.use_commands.prediction_inputs import open_input

    if not 1 <= arguments.candidates <= _MOST_CANDIDATES:
        raise BadInput(f"-n {arguments.candidates}: must be from 1 to {_MOST_CANDIDATES}")
    replies = []
    with tempfile.TemporaryDirectory() as folder:
        source = open_input(arguments, Path(folder))
        model = open_model(arguments)
        emotion = label_of(arguments.emotion, model.description.labels, "--emotion")
        # read before the model is loaded: errors come first
        dialogues = [(d.id, deque(d.turns, maxlen=MOST_CONTEXT)) for d in source.dialogues()]
        settings = engine_settings(arguments, model.description.decoding)
        judge = None
        if arguments.judge:
            judging = open_model(arguments, arguments.judge)
            judging_settings = engine_settings(arguments, judging.description.decoding)
            settings, judging_settings = side_by_side(settings, judging_settings)
            judge = judging, judging_settings
        with open_responder(model, settings, judge) as responder:
            for name, turns in dialogues:
                speaker = arguments.speaker or reply_speaker(turns)
                candidates = responder.reply(
                    list(turns), speaker, emotion, n=arguments.candidates, seed=arguments.seed
                )
                replies.append(_Replies(name, speaker, emotion, candidates))
            shortened = responder.shortened
    warnings = source.warnings()
    if shortened:
        most = model.description.prompts.max_prompt_tokens
        warnings = [
            *warnings,
            f"last turns that are longer than this model's prompt limit of {most} tokens: "
            f"{shortened}; only their beginnings were answered",
        ]
    for warning in warnings:
        sys.stderr.write(f"warning: {visible(warning)}\n")
    if arguments.output == "json":
        content = {
            "labels": list(model.description.labels),
            "replies": [reply.to_json() for reply in replies],
        }
        sys.stdout.write(json_text(content, indent=2) + "\n")
    else:
        sys.stdout.write(printable_lines("\n".join(_table(replies))) + "\n")
    return ExitCode.OK


def _table(replies: Sequence[_Replies]) -> list[str]:
    """Return the lines of a table for people: a candidate in each."""
    heading = [
        "dialogue",
        "speaker",
        "candidate",
        "predicted",
        f"p_{replies[0].emotion}",
        "text",
    ]
    rows = [heading]
    for reply in replies:
        for number, candidate in enumerate(reply.candidates, start=1):
            reading = candidate.reading
            rows.append(
                [
                    *(reply.dialogue, reply.speaker, str(number)),
                    max(reading, key=lambda label: reading[label]) if candidate.text else "-",
                    f"{reading[reply.emotion]:.3f}",
                    candidate.text,
                ]
            )
    rows = [[visible(cell) for cell in row] for row in rows]
    return aligned(rows)
