"""Renders the evolutions' series in Prometheus' text format.

An evolution changes a few times an hour and is scraped twice a minute. So its lines are cached
until it changes: rendering 500 evolutions for each scrape would take half a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.utils import floatToGoString

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.caches.evolution_text import REFUSED
from selfemo_operator.controller.metrics.series import (
    EVOLUTION,
    OBJECT_LABELS,
    PREFIX,
    Series,
)
from selfemo_operator.controller.metrics.series_readers import Values
from selfemo_operator.controller.metrics.snapshot import snapshot_of
from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: The most series of one evolution. Seven emotions on two datasets fit, with expression. With more,
#: the last series are left out; the report contains them.
MAX_SERIES = 150
LEFT_OUT = Series(
    "series_left_out",
    f"Number of series that are left out, because an evolution has at most {MAX_SERIES}",
    lambda _: (),
)

Chunks = tuple[bytes, ...]
"""The lines of one evolution, one text for each name of a series."""


@dataclass(frozen=True)
class _CachedChunks:
    """The lines of one evolution at a resource version."""

    version: int
    chunks: Chunks | None
    """None if the resource cannot be read."""


class Exposition:
    """Renders the series of all cached evolutions. Thread-safe.

    Parameters
    ----------
    cache
        The cache of the evolutions.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._rendered: dict[Key, _CachedChunks] = {}
        self._lock = threading.Lock()

    @property
    def unreadable(self) -> int:
        """The number of evolutions that the last text leaves out because they cannot be read."""
        return sum(entry.chunks is None for entry in list(self._rendered.values()))

    def text(self) -> str:
        """Return all series."""
        return b"".join(self.parts()).decode()

    def parts(self) -> list[bytes]:
        """Return the text of all series in parts: thousands of evolutions have tens of MB."""
        with self._lock:
            before, self._rendered = self._rendered, {}
            for key, version in self._cache.evolution_versions():
                entry = self._render(before.get(key), key, version)
                if entry is not None:
                    self._rendered[key] = entry
            chunks = [e.chunks for e in self._rendered.values() if e.chunks is not None]
        return list(_by_family(chunks))

    def refresh(self, key: Key) -> None:
        """Render one evolution if it has changed, so that the next scrape need not."""
        with self._lock:
            version = self._cache.evolution_version(key)
            if version is None:
                self._rendered.pop(key, None)
                return
            entry = self._render(self._rendered.get(key), key, version)
            if entry is not None:
                self._rendered[key] = entry

    def _render(self, before: _CachedChunks | None, key: Key, version: int) -> _CachedChunks | None:
        """Return the lines of an evolution, from the cache if its version is the same."""
        if before is not None and before.version == version:
            return before
        item = self._cache.evolution(key)
        if item is None:  # just deleted
            return None
        if REFUSED in item:  # the status has the reason
            return _CachedChunks(version, None)
        try:
            return _CachedChunks(version, render_evolution(key, item))
        except Exception as error:  # noqa: BLE001 - one resource must not hide the others
            if before is None or before.chunks is not None:
                what = f"{type(error).__name__}: {error}"
                log.warning("%s/%s has no metrics: its resource cannot be read: %s", *key, what)
            return _CachedChunks(version, None)


def render_evolution(key: Key, item: Json) -> Chunks:
    """Return the lines of one evolution.

    Any exception of a reader is raised: the resource cannot be read then.

    Parameters
    ----------
    key
        The evolution's namespace and name.
    item
        The evolution as the API server returns it.
    """
    snapshot = snapshot_of(item)
    room, left_out = MAX_SERIES - 1, 0
    chunks = []
    object_labels = _label_pairs(OBJECT_LABELS, key)
    for series in EVOLUTION:
        lines = _lines(series, object_labels, series.read(snapshot))
        left_out += max(0, len(lines) - room)
        chunks.append("".join(lines[:room]).encode())
        room -= min(room, len(lines))
    (line,) = _lines(LEFT_OUT, object_labels, [((), float(left_out))])
    chunks.append(line.encode())
    return tuple(chunks)


def _lines(series: Series, object_labels: str, values: Values) -> list[str]:
    lines = []
    name = PREFIX + series.name
    for labels, value in values:
        if value is not None:
            number = floatToGoString(float(value))  # type: ignore[no-untyped-call]
            more = "," + _label_pairs(series.labels, labels) if series.labels else ""
            lines.append(f"{name}{{{object_labels}{more}}} {number}\n")
    return lines


def _label_pairs(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join([f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)])


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _by_family(evolutions: Sequence[Chunks]) -> Iterator[bytes]:
    """Yield the text: Prometheus needs all lines of a family together, below its header."""
    family = ""
    for index, series in enumerate((*EVOLUTION, LEFT_OUT)):
        lines = [chunks[index] for chunks in evolutions]
        if series.family != family:
            family = series.family
            header = (
                f"# HELP {PREFIX}{family} {series.help}\n# TYPE {PREFIX}{family} {series.kind}\n"
            )
            yield header.encode()
        yield from lines
