"""The commands that use a model. Each starts a program of the jobs' package."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import typer

from selfemo_operator.cli.job_program import (
    PASS_THROUGH,
    PassThroughCommand,
    replace_by_program,
    run_program,
)

_PROGRAM = "selfemo_jobs.use_commands"

#: What each command does, by its name. Its options are those of the program.
USE_COMMANDS: Mapping[str, str] = {
    "export": "Copy a model with its card to a folder, to S3 or to the hub, or convert it to GGUF.",
    "serve": "Serve a model by vLLM, for clients of the OpenAI API. Arguments after `--` are those of "
    "`vllm serve`.",
}

#: The commands that run until they are stopped.
_SERVERS = frozenset({"serve"})


def add_use_commands(app: typer.Typer) -> None:
    """Add the commands to an application.

    Parameters
    ----------
    app
        The application.
    """
    for name, text in USE_COMMANDS.items():
        app.command(name, help=text, cls=PassThroughCommand, context_settings=PASS_THROUGH)(
            _command(name)
        )


def _command(name: str) -> Callable[..., None]:
    start = replace_by_program if name in _SERVERS else run_program

    def command(context: typer.Context) -> None:
        start(_PROGRAM, [name, *context.args])

    return command
