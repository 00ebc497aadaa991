"""The documentation's links: those of all pages lead somewhere, and a dead one fails the build."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools.docs_site import ROOT, resolve, targets_of

#: All pages that people read, generated ones included.
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "helm/**/*.md", "images/*.md", "tests/support/**/*.md")
    for path in ROOT.glob(pattern)
)

#: All modules, tests and tools, as paths that begin with a slash.
MODULES = {
    f"/{path.relative_to(ROOT)}"
    for folder in ("crds", "operator", "jobs", "studies", "tests", "tools", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
}


def test_all_pages_are_read() -> None:
    assert {Path("README.md"), Path("docs/index.md"), Path("docs/glossary.md")} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = {target: resolve(str(page), target) for target in targets_of(text)}
    assert [t for t, path in paths.items() if path and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_modules_that_a_page_names_exist(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:\w+/)*\w+\.py)`", text))
    assert {name for name in names if not any(f.endswith(f"/{name}") for f in MODULES)} == set()


def test_links_of_code_are_left_alone() -> None:
    text = "[a](b.md)\n```\n[c](d.md)\n```\n`[e](f.md)` ![g](h.svg) [i](j.md#k)\n"
    assert targets_of(text) == ["b.md", "h.svg", "j.md#k"]


@pytest.mark.parametrize("name", ["prompts", "rewards", "selfemo", "store"])
def test_examples_of_the_python_reference_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / f"docs/reference/python/{name}.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, name, "exec"), {})
    results = re.findall(r"print\(.*\)  # (.*)", example)
    assert results
    assert capsys.readouterr().out.splitlines()[-len(results) :] == results


def _build(folder: Path, page: str) -> subprocess.CompletedProcess[str]:
    """Build a site of one page with the settings of this repository."""
    pytest.importorskip("mkdocs", reason="`make docs` installs it")
    (folder / "docs").mkdir()
    (folder / "docs" / "index.md").write_text(page)
    (folder / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\n"
        f"hooks: [{ROOT / 'tools' / 'docs_site.py'}]\n"
        "docs_dir: docs\nsite_dir: site\nnav: [index.md]\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_link_to_a_file_of_the_repository_gets_a_page(tmp_path: Path) -> None:
    done = _build(
        tmp_path, "# A\n\n[demo](../examples/demo.yaml), [rules](../helm/selfemo/files)\n"
    )
    assert done.returncode == 0, done.stderr
    assert 'href="repository/examples/demo.yaml.html"' in (tmp_path / "site/index.html").read_text()
    demo = (tmp_path / "site/repository/examples/demo.yaml.html").read_text()
    assert "EmotionEvolution" in demo
    rules = (tmp_path / "site/repository/helm/selfemo/files.html").read_text()
    assert "<code>rules/</code>" in rules


@pytest.mark.parametrize(
    "link",
    ["missing.md", "../examples/missing.yaml", "../missing", "#missing", "/index.md"],
)
def test_a_dead_link_fails_the_build(tmp_path: Path, link: str) -> None:
    done = _build(tmp_path, f"# A\n\n[b]({link})\n")
    assert done.returncode == 1
    assert link in done.stderr
