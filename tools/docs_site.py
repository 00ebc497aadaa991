"""Links of the documentation's site that leave ``docs/``: an MkDocs hook (``make docs``).

A page may link to any file of the repository, so that the link works where the repository is read.
The site gets a page for each file or folder that is linked to, below ``repository/``, and the link
then leads there. A link to something that does not exist stays as it is: MkDocs then reports it,
and a strict build fails.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import File, Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs"
#: Folder of the site for what lies outside ``docs/``.
REPOSITORY = "repository"

#: Code in backticks, or the target of a link or picture.
_CODE_OR_TARGET = re.compile(r"(?P<ticks>`+).*?(?P=ticks)|(?<=\]\()(?P<target>[^()\s]+)(?=[)\s])")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
#: Sphinx's roles, which docstrings use and Markdown does not know.
_ROLE = re.compile(r":[a-z]+:<code>~?([^<]*)</code>")

#: Highlighter by the end of a file's name; others are shown as plain text.
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}
_BINARY = {".png", ".svg", ".parquet"}

#: Page of the site by path in the repository, and the reverse.
_pages: dict[str, str] = {}
_origins: dict[str, str] = {}


def replace_targets(markdown: str, replace: Callable[[str], str]) -> str:
    """Return Markdown with the target of each link and picture replaced; code is left alone.

    Parameters
    ----------
    markdown
        The text of a page.
    replace
        Given a target as it is written, returns the new one.

    Examples
    --------
    >>> replace_targets("[a](b.md) and `[c](d.md)`", str.upper)
    '[a](B.MD) and `[c](d.md)`'
    """
    lines = []
    fence = ""
    for line in markdown.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            line = _CODE_OR_TARGET.sub(  # noqa: PLW2901 (the line's next form)
                lambda m: replace(m["target"]) if m["target"] else m[0], line
            )
        lines.append(line)
    return "".join(lines)


def targets_of(markdown: str) -> list[str]:
    """Return the targets of the links and pictures of a page, in order.

    Parameters
    ----------
    markdown
        The text of a page.

    Examples
    --------
    >>> targets_of("![a](b.png), [c](d.md#e)")
    ['b.png', 'd.md#e']
    """
    targets: list[str] = []

    def collect(target: str) -> str:
        targets.append(target)
        return target

    replace_targets(markdown, collect)
    return targets


def resolve(page: str, target: str) -> str | None:
    """Return the path in the repository that a link leads to, or None if it leads elsewhere.

    Parameters
    ----------
    page
        Path of the page in the repository.
    target
        The link's target as it is written.

    Examples
    --------
    >>> resolve("docs/guides/data.md", "../../examples/demo.yaml")
    'examples/demo.yaml'
    >>> resolve("docs/index.md", "https://kubernetes.io") is None
    True
    """
    path = target.partition("#")[0]
    if not path or path.startswith("/") or re.match(r"[a-z]+:", path):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path))


def _is_outside(path: str) -> bool:
    """Return whether a path in the repository lies outside ``docs/`` and exists."""
    return not path.startswith((f"{DOCS}/", "..")) and path != DOCS and (ROOT / path).exists()


def _page_of(path: str) -> str:
    """Return the page of the site for a file or folder of the repository."""
    file = ROOT / path
    if file.is_file() and file.suffix in {".md", *_BINARY}:
        return f"{REPOSITORY}/{path}"
    return f"{REPOSITORY}/{path}.md"


def _content(path: str) -> str:
    """Return the Markdown that shows a file or folder of the repository."""
    file = ROOT / path
    if file.suffix == ".md":
        return "---\nsearch: {exclude: true}\n---\n" + file.read_text(encoding="utf-8")
    head = f"---\nsearch: {{exclude: true}}\n---\n# {path}\n\n"
    if file.is_dir():
        entries = sorted(e for e in file.iterdir() if not e.name.startswith((".", "__")))
        listed = "".join(f"- `{e.name}{'/' if e.is_dir() else ''}`\n" for e in entries)
        return f"{head}A folder of the repository:\n\n{listed}"
    language = _LANGUAGES.get(file.suffix, "text")
    text = file.read_text(encoding="utf-8")
    return f"{head}A file of the repository:\n\n``````{language}\n{text}\n``````\n"


def _linked(origin: str, markdown: str) -> Iterator[str]:
    for target in targets_of(markdown):
        path = resolve(origin, target)
        if path is not None and path not in _pages and _is_outside(path):
            yield path


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each file or folder outside ``docs/`` that a page links to."""
    from mkdocs.structure.files import File, InclusionLevel

    _pages.clear()
    _origins.clear()

    def add(path: str) -> File:
        page = _pages[path] = _page_of(path)
        _origins[page] = path
        binary = (ROOT / path).suffix in _BINARY
        return File.generated(
            config,
            page,
            content=None if binary else _content(path),
            abs_src_path=str(ROOT / path) if binary else None,
            inclusion=InclusionLevel.NOT_IN_NAV,
        )

    waiting = [(f"{DOCS}/{f.src_uri}", f.content_string) for f in files.documentation_pages()]
    while waiting:
        origin, markdown = waiting.pop()
        for path in _linked(origin, markdown):
            if path in _pages:
                continue
            files.append(add(path))
            if path.endswith(".md"):
                waiting.append((path, (ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn links that leave ``docs/`` towards their pages of the site."""
    here = page.file.src_uri
    origin = _origins.get(here, f"{DOCS}/{here}")

    def moved(target: str) -> str:
        path = resolve(origin, target)
        if path is None:
            return target
        there = path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else _pages.get(path)
        if there is None:
            return target
        mark, anchor = target.partition("#")[1:]
        return posixpath.relpath(there, posixpath.dirname(here) or ".") + mark + anchor

    return replace_targets(markdown, moved)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Show the names that docstrings refer to by Sphinx's roles as code."""
    return _ROLE.sub(r"<code>\1</code>", html)
