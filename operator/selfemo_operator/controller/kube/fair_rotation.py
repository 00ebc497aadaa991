"""The order of a work queue's keys: groups take turns, and each has a share of the workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: A group may occupy this many times as many workers as are free. So the first group may have three
#: quarters of all workers, and each further one three quarters of the rest.
SHARE_OF_FREE = 3
#: Heavy keys that are processed at the same time: in all, and of one group. They take much memory.
MAX_HEAVY, MAX_HEAVY_OF_GROUP = 4, 2


@dataclass
class Limits(Generic[K]):
    """What a work queue knows of its keys and workers."""

    workers: int | None = None
    """The number of workers. None: a group may occupy all of them."""
    group_of: Callable[[K], Hashable] = lambda _: None
    """Returns the group of a key."""
    is_heavy: Callable[[K], bool] = lambda _: False
    """Returns whether a key takes much memory to process."""


@dataclass
class Usage(Generic[K]):
    """The keys that are being processed. The caller holds a lock."""

    limits: Limits[K]
    keys: dict[K, bool] = field(default_factory=dict)
    """The keys, and whether each was heavy when it was taken."""
    groups: Counter[Hashable] = field(default_factory=Counter)
    """The number of keys of each group."""
    heavy: Counter[Hashable] = field(default_factory=Counter)
    """The number of heavy keys of each group."""

    def take(self, key: K) -> None:
        """Count a key that is being processed from now on."""
        group, heavy = self.limits.group_of(key), self.limits.is_heavy(key)
        self.keys[key] = heavy
        self.groups[group] += 1
        self.heavy[group] += heavy

    def give_back(self, key: K) -> None:
        """Count a key no longer."""
        if key not in self.keys:
            return
        group = self.limits.group_of(key)
        self.heavy[group] -= self.keys.pop(key)
        self.groups[group] -= 1
        if not self.groups[group]:
            del self.groups[group], self.heavy[group]

    def admits_group(self, group: Hashable) -> bool:
        """Return whether another key of a group may be processed."""
        if self.limits.workers is None:
            return True
        free = self.limits.workers - len(self.keys)
        return not self.groups[group] or self.groups[group] < SHARE_OF_FREE * free

    def admits_key(self, key: K, group: Hashable) -> bool:
        """Return whether a key may be processed as far as its weight is concerned."""
        if not self.limits.is_heavy(key):
            return True
        return self.heavy.total() < MAX_HEAVY and self.heavy[group] < MAX_HEAVY_OF_GROUP


class Rotation(Generic[K]):
    """Keys in the order in which they were added; groups take turns. The caller holds a lock.

    Parameters
    ----------
    usage
        The keys that are being processed.
    """

    def __init__(self, usage: Usage[K]) -> None:
        self._usage = usage
        self._groups: dict[Hashable, dict[K, None]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._groups.get(self._usage.limits.group_of(key), ())

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._groups.values())

    def add(self, key: K) -> None:
        """Add a key, unless it is there."""
        self._groups.setdefault(self._usage.limits.group_of(key), {})[key] = None

    def discard(self, key: K) -> None:
        """Remove a key if it is there."""
        group = self._usage.limits.group_of(key)
        keys = self._groups.get(group, {})
        keys.pop(key, None)
        if not keys:
            self._groups.pop(group, None)

    def pop(self) -> K | None:
        """Remove and return the next key that may be processed, or return None."""
        for group, keys in self._groups.items():
            if not self._usage.admits_group(group):
                continue
            key = next((k for k in keys if self._usage.admits_key(k, group)), None)
            if key is not None:
                self.discard(key)
                if rest := self._groups.pop(group, None):
                    self._groups[group] = rest  # its next turn comes after those of all others
                return key
        return None
