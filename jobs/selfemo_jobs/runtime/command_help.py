"""Writes the help of a program that argparse parses in the form of the other commands."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator, Sequence

#: The largest width of a help text in characters.
_WIDTH = 80
#: The largest width of the column of names. A longer name has a line of its own.
_NAMES = 30


def help_text(parser: argparse.ArgumentParser) -> str:
    """Return the help of a command.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    width = max(min(shutil.get_terminal_size().columns, _WIDTH) - 2, 50)
    actions = [a for a in parser._actions if a.help is not argparse.SUPPRESS]
    subcommands = [a for a in actions if isinstance(a, argparse._SubParsersAction)]
    arguments = [a for a in actions if not a.option_strings and a not in subcommands]
    options = [a for a in actions if a.option_strings]
    common = ("quiet", "verbose", "help")
    options.sort(key=lambda a: common.index(a.dest) if a.dest in common else -1)
    words = ["[OPTIONS]", *map(argument_name, arguments)]
    words += ["COMMAND [ARGS]..."] if subcommands else []
    usage = f"%(prog)s {' '.join(words)}" if parser.usage is None else parser.usage
    lines = [f"Usage: {usage % {'prog': parser.prog}}", ""]
    for paragraph in (parser.description or "").split("\n\n"):
        lines += [*_wrapped(_sentence(paragraph), "  ", width), ""]
    lines += _section("Arguments", [(argument_name(a), _help(a)) for a in arguments], width)
    lines += _section("Options", [(_option_name(a), _help(a)) for a in options], width)
    for action in subcommands:
        rows = [(a.dest, _sentence(a.help or "")) for a in action._choices_actions]
        lines += _section("Commands", rows, width)
    if parser.epilog:
        lines += [*_wrapped(parser.epilog, "  ", width), ""]
    return "\n".join(lines).rstrip() + "\n"


def argument_name(action: argparse.Action) -> str:
    """Return an argument as the usage line shows it, for example ``SOURCE...``.

    Parameters
    ----------
    action
        The action of a positional argument.
    """
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    shown = f"{name}..." if action.nargs in ("+", "*") else name
    return f"[{shown}]" if action.nargs in ("?", "*") else shown


def _option_name(action: argparse.Action) -> str:
    """Return the names of an option, the short one first, with its value."""
    names = ", ".join(sorted(action.option_strings, key=len))
    if action.nargs == 0:
        return names
    if isinstance(action.metavar, str):
        return f"{names} {action.metavar}"
    if action.choices:
        return f"{names} <{'|'.join(str(choice) for choice in action.choices)}>"
    return f"{names} <{getattr(action.type, '__name__', 'str').lower()}>"


def _help(action: argparse.Action) -> str:
    """Return the help of a parameter, with its default or whether it is required."""
    text = _sentence(action.help or "")
    if action.required and action.nargs not in ("?", "*"):
        return f"{text}  [required]"
    hidden: tuple[object, ...] = (None, False, "", [], argparse.SUPPRESS)
    is_shown = action.default not in hidden and "efault" not in text
    return f"{text}  [default: {action.default}]" if is_shown else text


def _sentence(text: str) -> str:
    """Return a help text of argparse as a sentence."""
    text = " ".join(text.split())
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""


def _section(title: str, rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield the lines of a section: names, and beside them their help."""
    if not rows:
        return
    column = min(max(len(name) for name, _ in rows), _NAMES) + 2
    yield f"{title}:"
    for name, text in rows:
        lines = _wrapped(text, "", width - column - 2) or [""]
        if len(name) > column - 2:
            yield f"  {name}"
        else:
            yield f"  {name:<{column}}{lines.pop(0)}".rstrip()
        yield from (" " * (column + 2) + line for line in lines)
    yield ""


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
