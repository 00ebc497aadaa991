"""What people copy from the documentation works: YAML, commands, module names and field paths."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml

from selfemo_api.recipes import with_overrides
from selfemo_api.schema.crd import build_crd, structural
from selfemo_api.schema.validation import load_evolution
from selfemo_api.spec import EvolutionSpec
from selfemo_jobs.base_models.__main__ import parser as model_parser
from selfemo_jobs.data_commands.__main__ import parser as data_parser
from selfemo_jobs.runtime.command_line import UsageError
from selfemo_jobs.use_commands.__main__ import parser as use_parser
from selfemo_operator.cli import kubectl, main
from selfemo_operator.cli.use import USE_COMMANDS

ROOT = Path(__file__).resolve().parents[2]
#: Pages of finished studies quote the settings of their time.
RECORDED = {ROOT / "docs/studies/meld.md", ROOT / "docs/studies/emorynlp.md"}
#: The page with the files of the recipes.
RECIPES = ROOT / "docs/reference/recipes.md"
PAGES = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "helm/**/*.md", "images/*.md")
    for path in ROOT.glob(pattern)
    if path not in RECORDED
)
#: Highlighters of blocks that hold commands; none stands for plain blocks.
SHELLS = {"", "bash", "console", "sh", "shell"}
_FENCE = re.compile(r"^ *(`{3,}|~{3,}) *(\S*)[^\n]*\n(.*?)^ *\1 *$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_PART = r"[A-Za-z]+(?:\[[^\]]*\])?"
_FIELD_PATH = re.compile(rf"({_PART}(?:\.{_PART})+)(?=$|[:\s])")
_FILE_SUFFIXES = (".yaml", ".json", ".jsonl", ".md", ".html", ".py", ".csv", ".lock", ".log")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(page, m[2].lower(), m[3]) for m in _FENCE.finditer(text)]


def spans_of(page: Path) -> list[str]:
    """Return the code spans of a page, outside of fenced blocks."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in _SPAN.findall(text)]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


# YAML


def documents_of(block: Block) -> list[Any]:
    return [d for d in yaml.safe_load_all(block.text) if isinstance(d, dict)]


YAML_BLOCKS = [block for block in BLOCKS if block.language in {"yaml", "yml"}]
EVOLUTIONS = [block for block in BLOCKS if re.search(r"^kind: EmotionEvolution$", block.text, re.M)]


def test_there_is_yaml_to_check() -> None:
    pages = {block.page for block in EVOLUTIONS}
    assert {ROOT / "docs/tutorials/own-data.md", ROOT / "docs/tutorials/kubernetes.md"} <= pages


@pytest.mark.parametrize("block", EVOLUTIONS, ids=lambda b: str(b.page.relative_to(ROOT)))
def test_an_evolution_is_valid(block: Block, tmp_path: Path) -> None:
    assert block.language in {"yaml", "yml"}
    file = tmp_path / "evolution.yaml"
    file.write_text(block.text)
    load_evolution(file)  # raises with what is wrong


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=lambda b: str(b.page.relative_to(ROOT)))
def test_a_part_of_a_spec_is_valid_in_the_demo(block: Block, tmp_path: Path) -> None:
    demo = yaml.safe_load((ROOT / "examples/demo.yaml").read_text())
    for document in documents_of(block):
        part = document.get("spec", document) if document.keys() <= {"spec"} else document
        if "kind" in document or not part.keys() <= spec_schema()["properties"].keys():
            continue  # a whole resource, or Helm's values
        if block.page == RECIPES and "overrides" not in part:  # the file of a recipe
            part = {"recipe": "paper-v1", **with_overrides(part)}
        file = tmp_path / "evolution.yaml"
        file.write_text(yaml.safe_dump({**demo, "spec": overlaid(demo["spec"], part)}))
        load_evolution(file)


def overlaid(base: Any, part: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(part, dict)):
        return part
    return {**base, **{key: overlaid(base.get(key), value) for key, value in part.items()}}


# Commands


class Command(NamedTuple):
    """A command that a page shows, split into words."""

    page: Path
    words: list[str]


def lines_of(page: Path) -> Iterator[str]:
    """Yield the command lines of a page: those of its shell blocks, and its code spans."""
    for block in blocks_of(page):
        if block.language in SHELLS:
            yield from block.text.replace("\\\n", " ").splitlines()
    yield from spans_of(page)


def commands_of(page: Path) -> Iterator[Command]:
    for line in lines_of(page):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe: prose, or output
            continue
        start = 0
        for end, word in enumerate([*words, ";"]):
            if word in {"&&", "||", "|", ";"}:
                part = words[start:end]
                while part and re.fullmatch(r"[A-Z_]+=\S*", part[0]):
                    part = part[1:]
                if part:
                    yield Command(page, part)
                start = end + 1


COMMANDS = [command for page in PAGES for command in commands_of(page)]
SELFEMO = [c for c in COMMANDS if c.words[0].split("/")[-1] == "selfemo" and len(c.words) > 1]
KUBECTL = [c for c in COMMANDS if c.words[:2] == ["kubectl", "selfemo"] and len(c.words) > 2]


def check_options(words: Sequence[str], known: set[str], where: str) -> None:
    own = itertools.takewhile(lambda word: word != "--", words)  # the others are of vLLM
    options = {word.partition("=")[0] for word in own if re.match(r"--?[a-zA-Z]", word)}
    assert options <= known | {"--help", "-h"}, f"{where} has no {sorted(options - known)}"


def check_command(app: typer.Typer, words: Sequence[str]) -> None:
    """Check that the words name an existing command, with options that it has."""
    group: Any = typer.main.get_command(app)  # of the click that typer carries
    if words[0].startswith("-"):
        known = {o for p in group.params for o in (*p.opts, *p.secondary_opts)}
        return check_options(words, known, "the command itself")
    for name in words[0].split("|"):
        command = group.commands.get(name)
        assert command is not None, f"there is no command {name}"
        if name in PROGRAMS:
            return check_program(name, words[1:])
        if app is main.app and name in USE_COMMANDS:
            return check_options(words[1:], use_options(name), name)
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        check_options(words[1:], known, name)
    return None


#: The parsers of the commands that are programs of the jobs.
PROGRAMS = {"data": data_parser, "model": model_parser}


def check_program(program: str, words: Sequence[str]) -> None:
    for name in words[0].split("|") if words else []:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), pytest.raises((SystemExit, UsageError)) as end:
            PROGRAMS[program]().parse_args([name, "--help"])
        assert end.type is SystemExit, f"there is no command {program} {name}"
        known = set(re.findall(r"--[a-z-]+", text.getvalue()))
        check_options(words[1:], known, f"{program} {name}")


def use_options(name: str) -> set[str]:
    """Return the options of a command that uses a model."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        use_parser([name]).parse_args([name, "--help"])
    return set(re.findall(r"(?<![-a-z])--?[a-z][a-z-]*", text.getvalue()))


def test_there_are_commands_to_check() -> None:
    names = {c.words[1] for c in SELFEMO}
    assert {"run", "watch", "report", "validate", "model"} <= names
    assert {"watch", "logs", "suspend", "resume", "report"} <= {c.words[2] for c in KUBECTL}


@pytest.mark.parametrize("command", SELFEMO, ids=lambda c: f"{c.page.stem}: {' '.join(c.words)}")
def test_a_selfemo_command_exists(command: Command) -> None:
    check_command(main.app, command.words[1:])


@pytest.mark.parametrize("command", KUBECTL, ids=lambda c: f"{c.page.stem}: {' '.join(c.words)}")
def test_a_kubectl_selfemo_command_exists(command: Command) -> None:
    check_command(kubectl.app, command.words[2:])


@pytest.mark.parametrize(
    "words",
    [
        ["evolve", "mine.yaml"],
        ["run", "mine.yaml", "--volume", "mine=."],
        ["model", "warmstart"],
        ["model", "warm-start", "--epochs", "3"],
        ["data", "clean", "x.csv"],
        ["data", "check", "x.csv", "--fix"],
    ],
    ids=" ".join,
)
def test_a_command_that_does_not_exist_is_found(words: list[str]) -> None:
    with pytest.raises(AssertionError):
        check_command(main.app, words)


def test_modules_that_are_run_exist() -> None:
    modules = {
        c.words[2]
        for c in COMMANDS
        if c.words[0].split("/")[-1].startswith("python")
        and c.words[1:2] == ["-m"]
        and len(c.words) > 2
    }
    ours = {m for m in modules if m.startswith(("selfemo_", "tools.")) and "<" not in m}
    assert "selfemo_jobs.stages.train" in ours
    assert {m for m in ours if not is_program(m)} == set()


def is_program(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return False
    if spec is None:
        return False
    is_package = spec.submodule_search_locations is not None
    return not is_package or importlib.util.find_spec(f"{module}.__main__") is not None


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for c in COMMANDS
        if c.words[0] == "make"
        for word in c.words[1:2]
        if re.fullmatch(r"[a-z0-9-]+", word)
    }
    assert "demo" in named
    assert named <= targets


# Field paths


def resource_schema() -> dict[str, Any]:
    schema: dict[str, Any] = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def spec_schema() -> dict[str, Any]:
    """Return the schema of the resolved spec: with the settings that `overrides` replaces."""
    return structural(EvolutionSpec)


def has_field(schema: dict[str, Any], path: str) -> bool:
    """Return whether a dotted path (``status.conditions[0].type``) is in a schema."""
    for part in path.split("."):
        if schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema:
            return True
        schema = schema.get("items", schema)
        found = schema.get("properties", {}).get(part.partition("[")[0])
        if found is None:
            return False
        schema = found
    return True


def has_value(values: Any, path: str) -> bool:
    """Return whether a dotted path is in the chart's values."""
    for part in path.split("."):
        if not isinstance(values, dict):
            return False
        if values == {}:
            return True  # a map that is open
        if part not in values:
            return False
        values = values[part]
    return True


def field_paths_of(page: Path) -> Iterator[str]:
    for span in spans_of(page):
        match = _FIELD_PATH.match(span)
        if match and not match[1].endswith(_FILE_SUFFIXES):
            yield match[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_fields_that_are_named_exist(page: Path) -> None:
    spec, resource = spec_schema(), resource_schema()
    values = yaml.safe_load((ROOT / "helm/selfemo/values.yaml").read_text())
    missing = []
    for path in field_paths_of(page):
        root = path.split(".")[0].partition("[")[0]
        if root in spec["properties"]:
            exists = has_field(spec, path)
        elif root == "spec":
            exists = has_field(spec, path.partition(".")[2])
        elif root == "status":
            exists = has_field(resource, path)
        elif root in values:
            exists = has_value(values, path)
        else:
            continue
        if not exists:
            missing.append(path)
    assert missing == []


def test_a_field_that_does_not_exist_is_found() -> None:
    assert has_field(spec_schema(), "reward.judge.views")
    assert not has_field(spec_schema(), "reward.recogniser.views")
    assert has_field(resource_schema(), "status.conditions[0].message")
    assert not has_field(resource_schema(), "status.conditions[0].text")
