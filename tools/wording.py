"""Checks the words of code and documentation: ``python tools/wording.py [FILE…]``.

The list is short. It holds words that readers of the first release did not understand, British
spellings, and variable names that do not say what the variable holds. ``docs/glossary.md`` has the
terms to use instead.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

#: What is not used in text, and what to write instead.
WORDS = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again",
    r"afresh": "again, or from scratch",
    r"without a word": "without reporting an error, or with a message that says so",
    r"nobody": "no runner, no process, no user …",
    r"(?<!there )(is|are|was|were) no "
    r"(?!longer\b|more\b|less\b|other\b|such\b|need\b|different\b)[a-z]+": (
        "is not a …, or there is no …"
    ),
    r"dear": "expensive",
    r"without return": "without replacement",
    r"(is|are|was|were|still) at work": "is running, or is active",
    r"weighed": "weighted",
    r"(?<=[,;] )else(?! if\b)(?!:)": "otherwise",
    r"to be had": "available",
    r"as given": "baseline, or as specified",
    r"selecting source": "selection dataset",
    r"deciding source": "selection dataset",
    r"(?-i:anchor)(?!=)": "judge (reads and scores) or reference (of the KL)",
}
#: British spellings.
SPELLINGS = (
    r"\w*(recogni|optimi|normali|summari|penali|organi|initiali|serial[i]|minimi|maximi|generali"
    r"|tokeni|quanti|reali|utili|vectori|synchroni|randomi)s(e|es|ed|er|ers|ing|ation)",
    r"(un)?labell(ed|ing)",
    r"(be)?(colou|behaviou|neighbou|favou|honou|labou)r\w*",
    r"(grey|licence|judgement|cancelled|artefacts?|centre[ds]?|analyse[ds]?)",
)
#: Variables with these names say how a value came, not what it is.
VAGUE_NAMES = frozenset({"found", "said", "seen", "asked", "wanted", "took"})
#: How many functions of the packages and tools may still use one.
VAGUE_LIMIT = 20
#: Where the limit holds.
CODE = ("crds/", "operator/", "jobs/", "studies/", "tools/")

#: Not ours to word: generated, recorded, quoted, or data.
SKIPPED = (
    "CHANGELOG.md",
    "LICENSE",
    "uv.lock",
    "tools/wording.py",
    "docs/glossary.md",
    "tests/unit/test_wording.py",
    "examples/demo/",
    "tests/support/recorded/st",
    "tests/support/cluster/go/",
)
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".tpl", ".j2", ".toml", ".txt"}
#: Names that must stay as they are: (file, text).
ALLOWED = (
    ("crds/selfemo_api/seeds.py", "Recogniser"),  # part of every random stream
    ("studies/", "labelled"),  # the name of a source, part of the random streams
    ("examples/meld-cpu.yaml", "labelled"),
    ("jobs/selfemo_jobs/report/charts/svg.py", "anchor"),  # SVG's own word
)

_PROSE = re.compile(
    "|".join(f"(?P<w{i}>(?<![\\w-])(?:{word})(?![\\w-]))" for i, word in enumerate(WORDS))
    + "|"
    + "|".join(f"(?P<spelling{i}>(?<![\\w-]){s}(?![\\w-]))" for i, s in enumerate(SPELLINGS)),
    re.IGNORECASE,
)


class Problem(NamedTuple):
    """One place to reword."""

    file: str
    line: int
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: `{self.text}`: write {self.advice}"


def check_text(file: str, line: int, text: str) -> Iterator[Problem]:
    """Yield the words of one line of text that are on the list."""
    advice = list(WORDS.values())
    for match in _PROSE.finditer(text):
        if any(file.startswith(f) and t in match[0] for f, t in ALLOWED):
            continue
        kind = str(match.lastgroup)
        instead = advice[int(kind[1:])] if kind.startswith("w") else "the American spelling"
        yield Problem(file, line, match[0], instead)


def prose_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield the text of Python code with the numbers of its lines.

    Text is comments, the lines of strings, and the words of the names of functions and classes.
    """
    defined = False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if defined:
            yield token.start[0], token.string.replace("_", " ").strip()
        defined = token.string in ("def", "class")
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.type == tokenize.STRING and " " in token.string:
            for offset, text in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, text


def vague_functions(source: str) -> list[tuple[int, str, list[str]]]:
    """Return line, name and vague variable names of each function that has some."""
    functions = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = {
                n.id
                for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
            names |= {a.arg for a in ast.walk(node) if isinstance(a, ast.arg)}
            if vague := sorted(names & VAGUE_NAMES):
                functions.append((node.lineno, node.name, vague))
    return functions


def files_of(arguments: Sequence[str]) -> list[str]:
    """Return the files to check, relative to the checkout: those named, or all that git tracks."""
    if arguments:
        return [str(Path(a).resolve().relative_to(ROOT)) for a in arguments]
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [f for f in listed.stdout.splitlines() if (ROOT / f).is_file()]


def main(argv: Sequence[str] | None = None) -> int:
    """Print each place to reword; return 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="default: all files that git tracks")
    parser.add_argument("--names", action="store_true", help="list the functions with vague names")
    options = parser.parse_args(argv)
    problems: list[Problem] = []
    vague: list[str] = []
    for file in files_of(options.files):
        path = ROOT / file
        if file.startswith(SKIPPED) or not (path.suffix in SUFFIXES or path.name == "Makefile"):
            continue
        text = path.read_text(encoding="utf-8")
        lines = prose_of(text) if path.suffix == ".py" else enumerate(text.splitlines(), 1)
        for number, line in lines:
            problems += check_text(file, number, line)
        if path.suffix == ".py" and file.startswith(CODE):
            for number, name, names in vague_functions(text):
                vague.append(f"{file}:{number}: {name}: {', '.join(names)}")
    for problem in problems:
        print(problem)
    if options.names:
        print(*vague, sep="\n")
    too_many = len(vague) > VAGUE_LIMIT
    if too_many:
        print(
            f"{len(vague)} functions have a variable named {', '.join(sorted(VAGUE_NAMES))} (at "
            f"most {VAGUE_LIMIT}): name it by what it holds; --names lists them"
        )
    return 1 if problems or too_many else 0


if __name__ == "__main__":
    sys.exit(main())
