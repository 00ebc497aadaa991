"""Each place that writes to the terminal writes fixed text, or text without control characters.

`tests/unit/operator/cli/test_hostile_text.py` runs the commands. This test finds the place that a
new command would forget.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The packages whose programs a person starts in a terminal, or whose logs a person reads.
PLACES = ("crds/selfemo_api", "operator/selfemo_operator", "jobs/selfemo_jobs")
#: The functions that return text without control characters.
SAFE = {"printable", "printable_lines", "visible", "json_text", "escaped_json", "yaml_text"}
#: How many writes of a module may have other text, and why.
_GENERATED = "generates a file from the types"
_PACKAGED = "a file of the package"
EXCEPTIONS = {
    "crds/selfemo_api/schema/crd.py": (1, _GENERATED),
    "crds/selfemo_api/schema/recipe_reference.py": (1, _GENERATED),
    "crds/selfemo_api/schema/reference.py": (1, _GENERATED),
    "operator/selfemo_operator/cli/entry_point.py": (1, "the help of the command"),
    "operator/selfemo_operator/cli/job_program.py": (1, "the help of the command"),
    "operator/selfemo_operator/cli/kubectl.py": (1, "manifests_text is by yaml_text"),
    "operator/selfemo_operator/cli/resolved.py": (1, "resolved_yaml is by yaml_text"),
    "operator/selfemo_operator/cli/runs/logs.py": (1, "its functions return safe lines"),
    "operator/selfemo_operator/cli/setup/commands.py": (1, _PACKAGED),
    "operator/selfemo_operator/cli/setup/example.py": (1, _PACKAGED),
    "operator/selfemo_operator/cli/setup/init.py": (1, "its values are by yaml_text, json_text"),
    "operator/selfemo_operator/cli/version.py": (1, "the version"),
    "jobs/selfemo_jobs/use_commands/predict.py": (1, "numbers, in a line that is replaced"),
    "jobs/selfemo_jobs/use_commands/serve.py": (2, "a pipe's template; the person's own words"),
}


def writes(path: Path) -> Iterator[tuple[int, ast.expr]]:
    """Yield the line and the text of each write to standard output or standard error."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        is_write = name in ("sys.stdout.write", "sys.stderr.write", "print", "typer.echo")
        if is_write:
            yield from ((node.lineno, argument) for argument in node.args)
        assert name != "traceback.print_exception", (
            f"{path}:{node.lineno}: its text is not replaced"
        )


def is_safe(text: ast.expr) -> bool:
    """Return whether a text is fixed, or each of its parts is the result of a safe function."""
    match text:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name.isupper()
        case ast.Call(func=ast.Name(id=name)):
            return name in SAFE
        case ast.Call(func=ast.Attribute(value=value, attr="join"), args=[ast.GeneratorExp() as g]):
            parts = [value, g.elt]
        case ast.JoinedStr(values=parts):
            pass
        case ast.FormattedValue(value=value):
            parts = [value]
        case ast.BinOp(left=left, right=right):
            parts = [left, right]
        case _:
            return False
    return all(map(is_safe, parts))


def test_texts_are_safe() -> None:
    unsafe: dict[str, list[int]] = {}
    count = 0
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*.py")):
            for line, text in writes(path):
                count += 1
                if not is_safe(text):
                    unsafe.setdefault(str(path.relative_to(ROOT)), []).append(line)
    assert count > 40
    allowed = {name: number for name, (number, _) in EXCEPTIONS.items()}
    assert {name: len(lines) for name, lines in unsafe.items()} == allowed, unsafe


def test_rich_prints_no_markup() -> None:
    """Only PlainConsole makes a console, and no text is parsed as markup."""
    for path in sorted((ROOT / "operator").rglob("*.py")):
        text = path.read_text()
        assert "from_markup" not in text, path
        if path.name != "output_format.py":
            assert "= Console(" not in text, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "TextColumn":
                options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                fields = ast.unparse(node.args[0])
                assert options.get("markup") == "False" or "fields" not in fields, path
