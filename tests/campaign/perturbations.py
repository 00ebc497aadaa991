"""The perturbations: what each does, and how often it is drawn.

`at` of a perturbation is a number of the operator's writes. `moment` says whether it takes place
before that write is forwarded, after the server has processed it, or beside it in another thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.campaign.faults import StreamFault, Window, any_request
from tests.campaign.kubelet import ENDINGS
from tests.campaign.model import Perturbation
from tests.campaign.requests import Cut, Request
from tests.campaign.world import World

Moment = Literal["before", "after", "beside"]
Effect = Callable[[World, Perturbation], str | None]
"""Applies a perturbation. A text means that it found nothing to act on, and does not count."""


@dataclass(frozen=True)
class Kind:
    """A kind of perturbation."""

    effect: Effect
    moment: Moment
    weight: int = 4
    amounts: tuple[int, ...] = (0,)
    targets: bool = False
    """Whether it is about one evolution."""
    armed: bool = False
    """Whether it is only armed: it counts once it has had an effect."""


PERTURBATIONS: dict[str, Kind] = {}


def register(
    name: str,
    moment: Moment,
    *,
    weight: int = 4,
    amounts: tuple[int, ...] = (0,),
    targets: bool = False,
    armed: bool = False,
) -> Callable[[Effect], Effect]:
    """Return a decorator that adds a kind of perturbation."""

    def add(effect: Effect) -> Effect:
        PERTURBATIONS[name] = Kind(effect, moment, weight, amounts, targets, armed)
        return effect

    return add


def drawn(rng: random.Random, at: int, targets: list[str], kinds: list[str]) -> Perturbation:
    """Return a random perturbation.

    Parameters
    ----------
    rng
        The source of randomness.
    at
        The number of the write at which it takes place.
    targets
        The names of the evolutions that it may be about.
    kinds
        The kinds to draw from.
    """
    name = rng.choices(kinds, [PERTURBATIONS[kind].weight for kind in kinds])[0]
    kind = PERTURBATIONS[name]
    target = rng.choice(targets) if kind.targets and targets else ""
    return Perturbation(name, at, target, rng.choice(kind.amounts))


# The operator's process and its writes ------------------------------------------------------------


@register("kill-before-write", "before", weight=8)
def _kill_before(world: World, _: Perturbation) -> str | None:
    world.leader().kill()
    raise Cut


@register("kill-after-write", "after", weight=8)
def _kill_after(world: World, _: Perturbation) -> str | None:
    world.leader().kill()
    raise Cut


@register("lost-request", "before", weight=6)
def _lost_request(world: World, _: Perturbation) -> str | None:
    raise Cut


@register("lost-reply", "after", weight=8)
def _lost_reply(world: World, _: Perturbation) -> str | None:
    raise Cut


@register("kill-and-stale-lists", "after", weight=4)
def _kill_and_stale(world: World, _: Perturbation) -> str | None:
    world.leader().kill()
    world.faults.add(Window("stale", any_request, time.monotonic() + 4.0))
    raise Cut


# Requests -----------------------------------------------------------------------------------------


def _refuse(
    world: World, this: Perturbation, left: int, *, only_writes: bool, after: int | None
) -> None:
    def matches(request: Request) -> bool:
        return any_request(request) and (request.write is not None or not only_writes)

    until = time.monotonic() + 5.0
    world.faults.add(Window("refuse", matches, until, left, this.amount, 0.0, after, this.kind))


@register("errors", "beside", weight=8, amounts=(429, 500, 503, 504), armed=True)
def _errors(world: World, this: Perturbation) -> str | None:
    after = 1 if this.amount in (429, 503) else None
    _refuse(world, this, 6, only_writes=False, after=after)
    return None


@register("write-errors", "beside", weight=8, amounts=(409, 429, 500, 504), armed=True)
def _write_errors(world: World, this: Perturbation) -> str | None:
    _refuse(world, this, 3, only_writes=True, after=1 if this.amount == 429 else None)
    return None


@register("status-refused", "beside", weight=3, amounts=(409, 422, 500), armed=True)
def _status_refused(world: World, this: Perturbation) -> str | None:
    def matches(request: Request) -> bool:
        return request.method == "PUT" and request.path.endswith("/status")

    world.faults.add(
        Window("refuse", matches, time.monotonic() + 3.0, 4, this.amount, label=this.kind)
    )
    return None


@register("forbidden", "beside", weight=6, amounts=(0, 1, 2, 3, 4, 5), armed=True)
def _forbidden(world: World, this: Perturbation) -> str | None:
    namespace = world.namespaces[this.amount % 2]
    resource = ("jobs", "emotionevolutions", "pods")[this.amount // 2]

    def matches(request: Request) -> bool:
        return request.namespace == namespace and request.resource == resource

    world.faults.add(Window("refuse", matches, time.monotonic() + 4.0, code=403, label=this.kind))
    world.proxy.reset_connections()
    return None


@register("slow-server", "beside", weight=3, amounts=(1, 2), armed=True)
def _slow(world: World, this: Perturbation) -> str | None:
    until = time.monotonic() + 3.0
    world.faults.add(
        Window("slow", any_request, until, 12, seconds=float(this.amount), label=this.kind)
    )
    return None


@register("server-away", "beside", weight=3, amounts=(1, 3), armed=True)
def _away(world: World, this: Perturbation) -> str | None:
    world.faults.add(Window("cut", any_request, time.monotonic() + this.amount, label=this.kind))
    world.proxy.reset_connections()
    return None


@register("stale-lists", "beside", weight=5, armed=True)
def _stale(world: World, this: Perturbation) -> str | None:
    world.faults.add(Window("stale", any_request, time.monotonic() + 3.0, label=this.kind))
    return None


# Watches ------------------------------------------------------------------------------------------

_RESOURCES = ("", "jobs", "emotionevolutions", "pods")


def _stream(world: World, effect: str, this: Perturbation, left: int, seconds: float) -> None:
    resource = _RESOURCES[this.amount % 4]
    until = time.monotonic() + seconds
    world.faults.add_stream(StreamFault(effect, until, resource, left, 1.5, 500, this.kind))


@register("events-dropped", "beside", weight=8, amounts=(0, 1, 2, 3), armed=True)
def _dropped(world: World, this: Perturbation) -> str | None:
    _stream(world, "drop", this, 2, 5.0)
    return None


@register("events-twice", "beside", weight=5, amounts=(0, 1, 2, 3), armed=True)
def _twice(world: World, this: Perturbation) -> str | None:
    _stream(world, "twice", this, 6, 5.0)
    return None


@register("events-late", "beside", weight=5, amounts=(0, 1, 2, 3), armed=True)
def _late(world: World, this: Perturbation) -> str | None:
    _stream(world, "delay", this, 3, 6.0)
    return None


@register("half-open-streams", "beside", weight=2, amounts=(0, 1, 2, 3), armed=True)
def _half_open(world: World, this: Perturbation) -> str | None:
    _stream(world, "mute", this, 10**6, 7.0)
    return None


@register("only-bookmarks", "beside", weight=2, amounts=(0, 1, 2, 3), armed=True)
def _bookmarks(world: World, this: Perturbation) -> str | None:
    _stream(world, "bookmarks", this, 10**6, 6.0)
    return None


@register("events-gone", "beside", weight=5, amounts=(0, 1, 2, 3), armed=True)
def _gone(world: World, this: Perturbation) -> str | None:
    _stream(world, "gone", this, 1, 5.0)
    return None


@register("events-error", "beside", weight=4, amounts=(0, 1, 2, 3), armed=True)
def _error(world: World, this: Perturbation) -> str | None:
    _stream(world, "error", this, 1, 5.0)
    return None


@register("streams-closed", "beside", weight=5, amounts=(0, 1, 2, 3), armed=True)
def _closed(world: World, this: Perturbation) -> str | None:
    _stream(world, "close", this, 4, 4.0)
    return None


@register("watches-end-at-once", "beside", weight=3, armed=True)
def _no_events(world: World, this: Perturbation) -> str | None:
    world.faults.add(Window("no-events", any_request, time.monotonic() + 3.0, label=this.kind))
    world.proxy.reset_connections()
    return None


@register("connections-reset", "beside", weight=4)
def _reset(world: World, _: Perturbation) -> str | None:
    world.proxy.reset_connections()
    return None


# Pods and Jobs ------------------------------------------------------------------------------------

_ENDINGS = (*ENDINGS, "message", "damaged", "damaged")
_EACH = tuple(range(len(_ENDINGS)))


@register("pod-lost", "beside", weight=14, amounts=_EACH, targets=True, armed=True)
def _pod_lost(world: World, this: Perturbation) -> str | None:
    record = world.running(this.target)
    if record is None:
        return "all have ended"
    world.kubelet.arm(record.uid, _ENDINGS[this.amount])
    return None


@register("pods-slow", "beside", weight=3, amounts=(2, 5), targets=True)
def _slow_pods(world: World, this: Perturbation) -> str | None:
    record = world.running(this.target)
    if record is None:
        return "all have ended"
    world.kubelet.hold(record.uid, float(this.amount))
    return None


@register("image-missing", "beside", weight=3, amounts=(3, 8), targets=True, armed=True)
def _image_missing(world: World, this: Perturbation) -> str | None:
    record = world.running(this.target)
    if record is None:
        return "all have ended"
    world.kubelet.wait_for_image(record.uid, float(this.amount))
    return None
