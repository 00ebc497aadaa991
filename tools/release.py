"""Keeps the version and the notes of releases: ``python tools/release.py prepare|check|notes``.

- ``prepare VERSION`` writes the version where it stands (pyproject.toml, uv.lock, the chart,
  CITATION.cff), and makes the section of the version in CHANGELOG.md from the files in ``changes``
  with towncrier. Given again for the same version, it adds what has come since.
- ``check [--tag v1.2.3]`` fails if these places differ, if the changelog has no section of the
  version, or if files in ``changes`` wait for the next one.
- ``notes [VERSION]`` prints the section of a version.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Where the version stands, as a pattern whose second group is the version.
PLACES = {
    "pyproject.toml": r'(?m)^(version = ")([^"]+)(")$',
    "CITATION.cff": r"(?m)^(version: )(\S+)()$",
    "helm/selfemo/Chart.yaml": r"(?m)^(version: )(\S+)()$",
    "uv.lock": r'(?m)^(name = "selfemo"\nversion = ")([^"]+)(")$',
}
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_DATE = r"(?m)^(date-released: )(\S+)()$"


class ReleaseError(Exception):
    """Something that a person must fix."""


def section(text: str, version: str) -> str | None:
    r"""Return the section of a version in the changelog, without its heading; None without one.

    Parameters
    ----------
    text
        The changelog.
    version
        The version.

    Examples
    --------
    >>> section("# C\n\n## 0.2.0 (today)\n\n- b\n\n## 0.1.0\n\n- a\n", "0.2.0")
    '- b'
    """
    match = re.search(rf"(?ms)^## {re.escape(version)}(?: [^\n]*)?\n(.*?)(?=^## |\Z)", text)
    return match[1].strip() if match else None


def versions(root: Path) -> dict[str, str]:
    """Return the version in each place."""
    stated = {}
    for name, pattern in PLACES.items():
        match = re.search(pattern, (root / name).read_text())
        stated[name] = match[2] if match else "none"
    return stated


def waiting(root: Path) -> list[str]:
    """Return the names of the files in ``changes`` that are not yet in the changelog."""
    names = (path.name for path in (root / "changes").iterdir())
    return sorted(name for name in names if name not in ("README.md", ".gitignore"))


def problems(root: Path, tag: str | None) -> Iterator[str]:
    """Yield what keeps the checkout from being released.

    Parameters
    ----------
    root
        The checkout.
    tag
        The tag of the release; None: there is none yet.
    """
    stated = versions(root)
    version = stated["pyproject.toml"]
    for name, other in stated.items():
        if other != version:
            yield f"{name} has the version {other}, pyproject.toml {version}: run `make release`"
    if tag is not None and tag != f"v{version}":
        yield f"the tag is {tag}, and the version {version}: a tag is `v` and the version"
    if tag is None:
        return
    if section((root / "CHANGELOG.md").read_text(), version) is None:
        yield f"CHANGELOG.md has no section {version}: run `make release VERSION={version}`"
    for name in waiting(root):
        yield f"changes/{name} is not in CHANGELOG.md: run `make release VERSION={version}`"


def prepare(root: Path, version: str, date: str) -> None:
    """Write the version everywhere, and its section in the changelog.

    Parameters
    ----------
    root
        The checkout.
    version
        The new version.
    date
        The date of the release, as ``2026-01-31``.

    Raises
    ------
    ReleaseError
        If the version is not three numbers, or a tool fails.
    """
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"`{version}` is not a version of three numbers, such as 0.2.0")
    for name, pattern in PLACES.items():
        _replace(root / name, pattern, version)
    # the chart's other version, and the date
    _replace(root / "helm/selfemo/Chart.yaml", r"(?m)^(appVersion: )(\S+)()$", version)
    _replace(root / "CITATION.cff", _DATE, date)
    if waiting(root):
        _write_section(root, version, date)


def _write_section(root: Path, version: str, date: str) -> None:
    """Move the files in ``changes`` to the section of the version, above what it already has."""
    changelog = root / "CHANGELOG.md"
    text = changelog.read_text()
    earlier = section(text, version)
    if earlier is not None:
        heading = re.compile(rf"(?ms)^## {re.escape(version)}(?: [^\n]*)?\n.*?(?=^## |\Z)")
        changelog.write_text(heading.sub("", text, count=1))
    command = [sys.executable, "-m", "towncrier", "build", "--yes"]
    command += ["--version", version, "--date", date]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        changelog.write_text(text)
        raise ReleaseError(f"towncrier: {done.stderr.strip() or done.stdout.strip()}")
    if earlier is not None:
        text = changelog.read_text()
        added = section(text, version) or ""
        changelog.write_text(text.replace(added, f"{added}\n\n{earlier}", 1))


def _replace(path: Path, pattern: str, value: str) -> None:
    text, count = re.subn(pattern, rf"\g<1>{value}\g<3>", path.read_text(), count=1)
    if not count:
        raise ReleaseError(f"{path.name}: there is no line `{pattern}`")
    path.write_text(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python tools/release.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare")
    preparing.add_argument("version")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    preparing.add_argument("--date", default=today)
    commands.add_parser("check").add_argument("--tag")
    commands.add_parser("notes").add_argument("version", nargs="?")
    options = parser.parse_args(argv)
    current = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if options.command == "prepare":
        prepare(ROOT, options.version, options.date)
        return 0
    if options.command == "check":
        lines = list(problems(ROOT, options.tag))
        sys.stderr.writelines(f"{line}\n" for line in lines)
        return 1 if lines else 0
    text = section((ROOT / "CHANGELOG.md").read_text(), options.version or current)
    if text is None:
        raise ReleaseError(f"CHANGELOG.md has no section {options.version or current}")
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ReleaseError as error:
        sys.exit(str(error))
