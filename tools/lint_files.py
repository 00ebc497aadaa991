"""Checks the files around the code: ``python tools/lint_files.py``, or ``make lint-files``.

- images: hadolint,
- the workflows: actionlint, which Go builds once, and zizmor for what an attacker could use,
- shell scripts: shellcheck,
- issue forms, workflows, Renovate's settings and CITATION.cff: their published schemas.

Each tool works without a network. One that this machine lacks is named and skipped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BIN = ROOT / ".venv" / "bin"


def commands() -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the name and the command of each check."""
    workflows = sorted(map(str, (ROOT / ".github" / "workflows").glob("*.yaml")))
    forms = sorted(
        str(path)
        for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")
        if path.name != "config.yml"
    )
    yield "hadolint", [*_program("hadolint"), *map(str, ROOT.glob("images/*/Dockerfile"))]
    if program := _actionlint():
        yield "actionlint", [program, "-no-color", f"-shellcheck={_BIN / 'shellcheck'}", *workflows]
    yield "zizmor", [*_program("zizmor"), "--offline", "--quiet", *workflows]
    yield "shellcheck", [*_program("shellcheck"), *map(str, shell_scripts())]
    schemas = {
        "vendor.github-workflows": workflows,
        "vendor.github-issue-forms": forms,
        "vendor.github-issue-config": [str(ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml")],
        "vendor.renovate": [str(ROOT / "renovate.json")],
        "vendor.citation-file-format": [str(ROOT / "CITATION.cff")],
    }
    for schema, files in schemas.items():
        yield schema, [*_program("check-jsonschema"), "--builtin-schema", schema, *files]


def shell_scripts() -> Iterator[Path]:
    """Yield the scripts of the repository that a shell runs."""
    for folder in ("tools", "images", ".ci"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and re.match(rb"#!.*\b(ba)?sh\n", path.read_bytes()):
                yield path


def _program(name: str) -> list[str]:
    return [str(_BIN / name)]


def _actionlint() -> str:
    """Return the path of actionlint, which Go builds once; empty if that is not possible."""
    sys.path.insert(0, str(ROOT))
    from tests.support.cluster import ClusterError, binaries

    try:
        return str(binaries.program("actionlint"))
    except ClusterError as error:
        sys.stderr.write(f"actionlint is skipped: {error}\n")
        return ""


def main() -> int:
    """Run all checks, and return 1 if one of them finds something."""
    failed = []
    for name, command in commands():
        if not Path(command[0]).is_file():
            sys.stderr.write(f"{name} is skipped: it is not installed (make setup-dev)\n")
            continue
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            failed.append(name)
            sys.stderr.write(f"{name}:\n{done.stdout}{done.stderr}\n")
    if failed:
        sys.stderr.write(f"problems of {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
