"""The generated reference of the commands, and the exit codes in their help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from tools import cli_reference
from typer.testing import CliRunner

from selfemo_operator.cli import kubectl, main
from selfemo_operator.cli.exit_codes import EXIT_CODES, exit_codes_help
from selfemo_operator.cli.use import USE_COMMANDS

APPS = {"selfemo": main.app, "kubectl selfemo": kubectl.app}


def command_names(name: str, command: Any) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield name
    for part, inner in getattr(command, "commands", {}).items():
        yield from command_names(f"{name} {part}", inner)


NAMES = [
    *(n for name, app in APPS.items() for n in command_names(name, typer.main.get_command(app))),
    "python -m selfemo_operator",
]


def section(name: str) -> str:
    """Return the part of the stored page about a command."""
    text = cli_reference.PATH.read_text(encoding="utf-8")
    return text.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]


def test_page_is_up_to_date() -> None:
    assert cli_reference._main(["--check"]) == 0


def test_a_stale_page_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_reference, "PATH", tmp_path / "reference" / "cli.md")
    assert cli_reference._main(["--check"]) == 1
    assert capsys.readouterr().err == "cli.md is stale: run `make generate` and commit it\n"
    assert cli_reference._main([]) == 0
    assert cli_reference._main(["--check"]) == 0
    cli_reference.PATH.write_text(cli_reference.PATH.read_text() + "\n")
    assert cli_reference._main(["--check"]) == 1


def test_page_contains_each_command_once() -> None:
    assert len(NAMES) == 26 + len(USE_COMMANDS)
    text = cli_reference.PATH.read_text(encoding="utf-8")
    assert re.findall(r"^## `(.+)`$", text, re.MULTILINE) == NAMES
    assert list(EXIT_CODES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_section_contains_help_and_exit_codes(name: str) -> None:
    text = section(name)
    assert f"```\n{name} [OPTIONS]" in text
    for code, meaning in EXIT_CODES[name].items():
        assert f"| {int(code)} | {meaning} |" in text


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (
            "selfemo run",
            "| `FILE` | `str` | required | YAML files of EmotionEvolutions, each with ",
        ),
        ("selfemo run", "| `--output`, `-o` | `table\\|json` | `table` | The output format"),
        ("selfemo run", "| `--dry-run` |  |  | Check the input, print the plan and exit. |"),
        ("selfemo watch", "| `--state` | `FOLDER` | `.selfemo` | The folder in which the runner "),
        (
            "selfemo watch",
            "| `FILE\\|NAME` | `str` | required | The YAML file of an EmotionEvolution, or",
        ),
        (
            "selfemo init",
            "| `FILE` | `str` |  | The file to write, or `-` for standard output. Default: "
            "evolution.yaml, or the example's name. |",
        ),
        ("kubectl selfemo logs", "| `--context` | `str` |  | The kubeconfig context."),
        ("selfemo watch", "Environment variable: `SELFEMO_STATE`. |"),
        (
            "selfemo data check",
            "| `SOURCE` | `str` | required | A file, a folder, a pattern, a URI",
        ),
        ("selfemo data convert", "| `--columns` | `PART=COLUMN,…` |  | The columns of the "),
        ("selfemo model tiny", "| `--seed` | `int` | `0` |"),
        ("selfemo model prepare", "| `NAME` | `smollm2` | required |"),
        (
            "selfemo model warm-start",
            "| `--format` | `MELD\\|EmoryNLP\\|IEMOCAP\\|JSONL\\|CSV\\|Parquet\\|HuggingFace` "
            "| required",
        ),
        ("kubectl selfemo logs", "| `--follow`, `-f` |  |  |"),
        ("python -m selfemo_operator", "| `--jobs-image` | `str` | required |"),
        ("python -m selfemo_operator", "| `--concurrency` | `int, >= 1, <= 64` | `32` |"),
    ],
)
def test_row_of_a_parameter(name: str, row: str) -> None:
    assert row in section(name)


TYPER_NAMES = [
    name
    for name in NAMES
    if name.count(" ") == 1 + name.startswith("kubectl") and name.split()[-1] not in USE_COMMANDS
]


@pytest.mark.parametrize("name", TYPER_NAMES)
def test_help_contains_the_exit_codes(name: str) -> None:
    app = next(app for prefix, app in APPS.items() if name.startswith(prefix))
    result = CliRunner().invoke(app, [name.rsplit(maxsplit=1)[-1], "--help"])
    assert result.exit_code == 0
    assert exit_codes_help(name) in " ".join(result.output.split())
