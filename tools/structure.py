"""Measures how the packages depend on each other: ``python tools/structure.py [CHECKOUT]``.

A *box* is a module or package directly below a top-level package; the operator's `controller` (the
flat `cluster` of the first release) is opened one level further, for it is half of the operator. An
*arrow* from one box to another says that at least one module in the first imports the second.
Imports inside functions and under ``TYPE_CHECKING`` count as well. Modules that import each other
form a *circle*.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

#: Top-level package to its folder, and the packages in it that are opened one level further.
PACKAGES = {
    "selfemo_api": ("crds", ()),
    "selfemo_operator": ("operator", ("cluster", "controller")),
    "selfemo_jobs": ("jobs", ()),
    "selfemo_study": ("studies", ()),
}
#: Module names that have the same role in every package that has one.
SAME_ROLE = frozenset({"__init__", "__main__", "stage", "metrics", "types", "interface", "fetch"})

Graph = Mapping[str, frozenset[str]]


def import_graph(folder: Path, package: str) -> Graph:
    """Return the modules of a package with the modules of the same package that each imports.

    Parameters
    ----------
    folder
        Where the package is.
    package
        Its name.
    """
    files = {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((folder / package).rglob("*.py"))
    }
    return {
        module: frozenset(_imports(path.read_text(encoding="utf-8"), files) - {module})
        for module, path in files.items()
    }


def _imports(source: str, known: Mapping[str, Path]) -> set[str]:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names]
            names = [n if n in known else node.module for n in names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        imported.update(n for n in names if n in known)
    return imported


def box_of(module: str, opened: Sequence[str]) -> str:
    """Return the box that a module is in."""
    parts = module.split(".")[1:]
    depth = 2 if parts and parts[0] in opened else 1
    return ".".join(parts[:depth])


def arrows(graph: Graph, opened: Sequence[str]) -> set[tuple[str, str]]:
    """Return the pairs of boxes of which the first imports the second."""
    pairs = {
        (box_of(a, opened), box_of(b, opened)) for a, targets in graph.items() for b in targets
    }
    return {(a, b) for a, b in pairs if a != b and a and b}


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of modules that import each other (Tarjan's strongly connected parts)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(graph.get(module, ())):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            at = stack.index(module)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return groups


def repeated_names(graphs: Mapping[str, Graph]) -> dict[str, list[str]]:
    """Return the file names that several modules have, without those of the same role."""
    modules = defaultdict(list)
    for graph in graphs.values():
        for module in graph:
            modules[module.rsplit(".", 1)[-1]].append(module)
    return {n: m for n, m in sorted(modules.items()) if len(m) > 1 and n not in SAME_ROLE}


def _report(checkout: Path) -> Iterator[str]:
    graphs = {}
    for package, (folder, opened) in PACKAGES.items():
        if not (checkout / folder / package).is_dir():
            continue
        graph = graphs[package] = import_graph(checkout / folder, package)
        pairs = arrows(graph, opened)
        boxes = {box_of(m, opened) for m in graph} - {""}
        yield f"{package}: {len(boxes)} boxes, {len(pairs)} arrows, {len(circles(graph))} circles"
        yield from (f"  circle: {' -> '.join(circle)}" for circle in circles(graph))
    for name, modules in repeated_names(graphs).items():
        yield f"{name}: {', '.join(modules)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print boxes, arrows, circles and file names that occur more than once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parent.parent)
    print(*_report(parser.parse_args(argv).checkout), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
