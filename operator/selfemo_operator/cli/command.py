"""Adds a function to an application as a command, with what all commands have in common."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from selfemo_api.contract import ExitCode
from selfemo_operator.cli.exit_codes import exit_codes_help
from selfemo_operator.cli.session import SESSION
from selfemo_operator.local.state import RunnerError

Function = TypeVar("Function", bound=Callable[..., Any])

#: More than the first sentence of any help has: lists of commands do not cut it.
_WHOLE = 1000
#: `-h` is as good as `--help` in every command.
HELP_OPTIONS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Print verbose output, including tracebacks."),
]
_COMMON = (
    inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet),
    inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose),
)


class PlainCommand(TyperCommand):
    """A command whose help names its arguments as the programs of the jobs do."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line: what is required is without braces."""
        return [
            piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of the help about arguments and options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                (name,) = parameter.get_usage_pieces(ctx)
                sections["Arguments"].append((_without_braces(name), record[1]))
            else:
                sections["Options"].append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _without_braces(name: str) -> str:
    return name.replace("{", "").replace("}", "")


class SectionedGroup(TyperGroup):
    """A group whose help shows its commands in sections, by the name of their panel."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section of the help for each panel, in the order of the commands."""
        del ctx
        sections: dict[str, list[Any]] = {}
        for command in self.commands.values():
            if not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                sections.setdefault(panel if isinstance(panel, str) else "Commands", []).append(
                    command
                )
        width = max(len(name) for name in self.commands)
        for title, commands in sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{c.name:<{width}}", c.get_short_help_str(_WHOLE)) for c in commands]
                )


def application(name: str, help_text: str) -> typer.Typer:
    """Return an application without commands.

    Parameters
    ----------
    name
        The name of the program.
    help_text
        What the program does.
    """
    return typer.Typer(
        name=name,
        help=help_text,
        cls=SectionedGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=HELP_OPTIONS,
    )


def command(
    app: typer.Typer, name: str, panel: str, *, program: str = "selfemo"
) -> Callable[[Function], Function]:
    """Return a decorator that adds a function to an application as a command.

    The command also gets `--quiet` and `--verbose`, and its help ends with its exit codes.

    Parameters
    ----------
    app
        The application.
    name
        The name of the command.
    panel
        The section of the application's help that lists the command.
    program
        The program, e.g. ``kubectl selfemo``.
    """
    whole = f"{program} {name}"

    def add(function: Function) -> Function:
        signature = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        def run(*, quiet: bool, verbose: bool, **values: Any) -> Any:
            begin_command(whole, quiet=quiet, verbose=verbose)
            SESSION.as_json = values.get("output") == "json"
            try:
                return function(**values)
            except KeyboardInterrupt:
                raise RunnerError("interrupted", ExitCode.INTERRUPTED) from None

        parameters = [*signature.parameters.values(), *_COMMON]
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        )
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        epilog = exit_codes_help(whole)
        app.command(name, cls=PlainCommand, epilog=epilog, rich_help_panel=panel)(run)
        return function

    return add


def begin_command(whole: str, *, quiet: bool = False, verbose: bool = False) -> None:
    """Remember which command runs, and how much it prints.

    Parameters
    ----------
    whole
        The whole command, e.g. ``selfemo run``.
    quiet, verbose
        The options of the command. Those of the program hold too.
    """
    SESSION.command = whole
    SESSION.quiet = SESSION.quiet or quiet
    SESSION.verbose = SESSION.verbose or verbose


def global_options(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a program that parses `--quiet` and `--verbose` itself.

    Parameters
    ----------
    arguments
        The arguments: the name of the command and its own arguments.
    """
    common = [f"--{name}" for name in ("quiet", "verbose") if getattr(SESSION, name)]
    return [*arguments[:1], *common, *arguments[1:]]
