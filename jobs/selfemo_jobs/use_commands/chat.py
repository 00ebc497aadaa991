"""``selfemo chat``: a conversation in the terminal. The model reads each turn and replies."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from selfemo_api.contract import ExitCode
from selfemo_api.text.control_characters import is_text, visible
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.errors import BadInput
from selfemo_jobs.use_commands.reply_options import MOST_CONTEXT, label_of
from selfemo_jobs.use_commands.use_options import (
    add_model_arguments,
    engine_settings,
    open_model,
)

if TYPE_CHECKING:
    from selfemo_jobs.use_commands.model_roles import Roles

HELP = (
    "Chat with a model. It recognizes the emotion of each of your turns and replies with an "
    "emotion."
)

_PROMPT = "> "
_COMMANDS = "/emotion LABEL, /mirror, /reset, /help, /quit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_model_arguments(parser)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--emotion", metavar="LABEL", help="reply with this emotion")
    mode.add_argument(
        "--mirror", action="store_true", help="reply with the emotion of your turn (default)"
    )
    parser.add_argument(
        "--speaker", default="B", metavar="NAME", help="the model's name in its prompts"
    )
    parser.add_argument("--user", default="A", metavar="NAME", help="your name in its prompts")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the random seed for sampling"
    )


def run(arguments: argparse.Namespace) -> int:
    """Chat until the input ends, and return the exit code."""
    from selfemo_jobs.use_commands.model_roles import open_roles

    if arguments.speaker == arguments.user:
        raise BadInput(f"--speaker and --user are both {arguments.user}: they must differ")
    model = open_model(arguments)
    labels = model.description.labels
    emotion = label_of(arguments.emotion, labels, "--emotion") if arguments.emotion else None
    settings = engine_settings(arguments, model.description.decoding)
    with open_roles(model, settings) as roles:
        chat = Chat(
            roles,
            labels,
            emotion,
            user=arguments.user,
            speaker=arguments.speaker,
            seed=arguments.seed,
        )
        try:
            if not arguments.quiet:
                sys.stderr.write(visible(f"{chat.mode}. Commands: {_COMMANDS}") + "\n")
            for line in _lines(sys.stdin):
                if not chat.answer(line):
                    break
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            return ExitCode.INTERRUPTED
    return ExitCode.OK


def _lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines that a person types until Ctrl-D, or those of a file."""
    if not stream.isatty():
        yield from stream
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - with it, input() edits lines and has a history
    try:
        while True:
            yield input(_PROMPT)
    except EOFError:
        sys.stdout.write("\n")


class Chat:
    """A conversation: its turns, and the emotion of the replies. It prints to standard output.

    Parameters
    ----------
    roles
        The recognizer and the responder.
    labels
        The label set.
    emotion
        The emotion of replies. None: that of the user's turn.
    user, speaker
        The names of the user and of the model in prompts.
    seed
        The seed of the draws.
    """

    def __init__(
        self,
        roles: Roles,
        labels: Sequence[str],
        emotion: str | None,
        *,
        user: str,
        speaker: str,
        seed: int,
    ) -> None:
        self._roles = roles
        self._labels = labels
        self._emotion = emotion
        self._user = user
        self._speaker = speaker
        self._seed = seed
        self._turns: deque[Utterance] = deque(maxlen=MOST_CONTEXT)
        self._count = 0

    @property
    def mode(self) -> str:
        """Which emotion replies have, as a sentence without its full stop."""
        what = f"the emotion {self._emotion}" if self._emotion else "the emotion of your turn"
        return f"Replies express {what}"

    def answer(self, line: str) -> bool:
        """Do what a line says, and return whether the chat goes on.

        Parameters
        ----------
        line
            A turn of the user, or a command, which begins with a slash.
        """
        text = " ".join(line.split())
        try:
            if text.startswith("/"):
                return self._command(*text.partition(" ")[::2])
            if text:
                self._reply(text)
        except BadInput as error:
            self._print(str(error))
        return True

    def _command(self, name: str, value: str) -> bool:
        """Run a command, and return whether the chat goes on. Raises BadInput."""
        if name == "/quit":
            return False
        if name == "/reset":
            self._turns.clear()
            self._print("The conversation starts over")
        elif name == "/mirror":
            self._emotion = None
            self._print(self.mode)
        elif name == "/emotion":
            self._emotion = label_of(value, self._labels, name)
            self._print(self.mode)
        elif name == "/help":
            self._print(f"{self.mode}. Commands: {_COMMANDS}. Labels: {', '.join(self._labels)}")
        else:
            raise BadInput(f"{name} is not a command: {_COMMANDS}")
        return True

    def _reply(self, text: str) -> None:
        """Print the emotion of a turn, and the reply. Raises BadInput if it cannot be read."""
        if not is_text(text):
            raise BadInput("the line contains bytes that are not UTF-8")
        turn = Utterance(self._user, text)
        turns = [*self._turns, turn]
        reading = self._roles.read(turns)
        self._print(f"{self._user} ({_label(reading.labels[0], reading.probabilities)})")
        emotion = self._emotion or reading.labels[0]
        reply = self._roles.reply(turns, self._speaker, emotion, self._seed + self._count)
        self._print(f"{self._speaker} ({_label(emotion, reply.reading)}): {reply.text}")
        self._count += 1
        self._turns.append(turn)
        if reply.text:
            self._turns.append(Utterance(self._speaker, reply.text))

    def _print(self, text: str) -> None:
        sys.stdout.write(visible(text) + "\n")
        sys.stdout.flush()


def _label(label: str, probabilities: Mapping[str, float]) -> str:
    return f"{label} {probabilities[label]:.2f}"
