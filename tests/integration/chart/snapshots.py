"""Snapshots of the rendered chart, as text that can be read in a review.

The snapshot of the default values is complete. The others contain the differences from it. Of long
texts (scripts, dashboards, the CRD) only the number of lines is kept, because they are files in the
repository.

`SELFEMO_UPDATE_SNAPSHOTS=1` writes the snapshots.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

FOLDER = Path(__file__).parent / "snapshots"
_LONG = 200
#: Kinds whose spec comes from a file.
_ELSEWHERE = ("CustomResourceDefinition", "PrometheusRule")
#: Labels that change with each release.
_VERSIONS = ("app.kubernetes.io/version", "helm.sh/chart")


def by_name(objects: list[Json]) -> dict[str, str]:
    """Return the text of each object by its kind and name, with its namespace if necessary."""
    texts: dict[str, str] = {}
    often = Counter((o["kind"], o["metadata"]["name"]) for o in objects)
    for document in objects:
        kind, metadata = document["kind"], document["metadata"]
        place = f"{metadata['namespace']}/" if often[kind, metadata["name"]] > 1 else ""
        name = f"{kind} {place}{metadata['name']}"
        assert name not in texts, f"{name} is rendered twice"
        short = {**document, "spec": "…"} if kind in _ELSEWHERE else document
        texts[name] = yaml.safe_dump(_shortened(short), width=100, allow_unicode=True)
    return dict(sorted(texts.items()))


def whole(texts: dict[str, str]) -> str:
    """Return the text of all objects."""
    return "".join(f"# {name}\n{text}---\n" for name, text in texts.items())


def difference(before: dict[str, str], after: dict[str, str]) -> str:
    """Return the objects that were removed, added or changed."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if new is None:
            lines.append(f"# {name}: gone\n")
        elif old is None:
            lines.append(f"# {name}: new\n{new}")
        elif old != new:
            lines.append(f"# {name}: changed\n")
            changes = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=1))[2:]
            # the line numbers of a hunk would change with every line above it
            lines += ["@@\n" if line.startswith("@@") else f"{line}\n" for line in changes]
    return "".join(lines)


def check(name: str, text: str) -> None:
    """Compare a text with its snapshot, or write it."""
    path = FOLDER / name
    if os.environ.get("SELFEMO_UPDATE_SNAPSHOTS"):
        path.write_text(text)
    assert path.is_file(), f"{path.name} does not exist: SELFEMO_UPDATE_SNAPSHOTS=1 writes it"
    assert text == path.read_text(), f"{path.name} is stale: SELFEMO_UPDATE_SNAPSHOTS=1 writes it"


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items() if key not in _VERSIONS}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and len(value) > _LONG:
        return f"… ({value.count(chr(10))} lines)"
    return value
