"""The evolutions' series as text, in Prometheus' text format.

An evolution changes a few times an hour and is asked for twice a minute, so its lines are kept
until it does: those of five hundred evolutions would take half a second at each scrape.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.utils import floatToGoString

from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.metrics.series import (
    EVOLUTION,
    PREFIX,
    WHO,
    Series,
    Values,
    picture_of,
)
from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]
log = logging.getLogger(__name__)

#: Series of one evolution. Seven emotions on three datasets fit; of 64 labels on 16 datasets the
#: last are left out, and the report has them.
MAX_SERIES = 119
LEFT_OUT = Series(
    "series_left_out",
    f"Series that are not shown, since an evolution has {MAX_SERIES} at most",
    lambda _: (),
)

Chunks = tuple[str, ...]
"""The lines of one evolution, by series."""


@dataclass(frozen=True)
class _Kept:
    version: int
    chunks: Chunks | None
    """None: it cannot be read."""


class Exposition:
    """Writes the series of all evolutions of a picture. Thread-safe.

    Parameters
    ----------
    view
        The picture.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._kept: dict[Key, _Kept] = {}
        self._lock = threading.Lock()

    @property
    def unreadable(self) -> int:
        """How many evolutions the last text leaves out, since they make no sense."""
        return sum(kept.chunks is None for kept in list(self._kept.values()))

    def text(self) -> str:
        """Return all series."""
        with self._lock:
            before, self._kept = self._kept, {}
            for key, version in self._cache.versions():
                kept = self._known(before.get(key), key, version)
                if kept is not None:
                    self._kept[key] = kept
            every = [kept.chunks for kept in self._kept.values() if kept.chunks is not None]
        return "".join(_written(every))

    def refresh(self, key: Key) -> None:
        """Write the lines of one evolution anew if it has changed, so that no scrape has to."""
        with self._lock:
            version = self._cache.version(key)
            if version is None:
                self._kept.pop(key, None)
                return
            kept = self._known(self._kept.get(key), key, version)
            if kept is not None:
                self._kept[key] = kept

    def _known(self, before: _Kept | None, key: Key, version: int) -> _Kept | None:
        if before is not None and before.version == version:
            return before
        item = self._cache.evolution(key)
        if item is None:  # deleted just now
            return None
        try:
            return _Kept(version, chunks_of(key, item))
        except Exception as error:  # noqa: BLE001 - whatever one holds, the others are shown
            if before is None or before.chunks is not None:
                what = f"{type(error).__name__}: {error}"
                log.warning("%s/%s: no metrics, its resource is odd: %s", *key, what)
            return _Kept(version, None)


def chunks_of(key: Key, item: Json) -> Chunks:
    """Return the lines of one evolution. Raises whatever a reader raises."""
    seen = picture_of(item)
    room, left_out = MAX_SERIES - 1, 0
    chunks = []
    who = _pairs(WHO, key)
    for series in EVOLUTION:
        lines = _lines(series, who, series.read(seen))
        left_out += max(0, len(lines) - room)
        chunks.append("".join(lines[:room]))
        room -= min(room, len(lines))
    chunks += _lines(LEFT_OUT, who, [((), float(left_out))])
    return tuple(chunks)


def _lines(series: Series, who: str, values: Values) -> list[str]:
    found = []
    name, own = PREFIX + series.name, series.labels
    for labels, value in values:
        if value is not None:
            number = floatToGoString(float(value))  # type: ignore[no-untyped-call]
            more = "," + _pairs(own, labels) if own else ""
            found.append(f"{name}{{{who}{more}}} {number}\n")
    return found


def _pairs(names: Sequence[str], texts: Sequence[str]) -> str:
    return ",".join([f'{n}="{_escaped(t)}"' for n, t in zip(names, texts, strict=True)])


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _written(every: Sequence[Chunks]) -> Iterator[str]:
    """Yield the text: Prometheus wants all lines of a family together, under its head."""
    family = ""
    for index, series in enumerate((*EVOLUTION, LEFT_OUT)):
        lines = [chunks[index] for chunks in every]
        if series.family != family:
            family = series.family
            yield f"# HELP {PREFIX}{family} {series.help}\n# TYPE {PREFIX}{family} {series.kind}\n"
        yield from lines
