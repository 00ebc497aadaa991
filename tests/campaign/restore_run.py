"""A scenario in which etcd is restored from an older snapshot while evolutions run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from tests.campaign import snapshots
from tests.campaign.recording import Recorder
from tests.campaign.runner import END_SECONDS, Run
from tests.campaign.world import World
from tests.support.cluster import Cluster

Json = dict[str, Any]
#: Seconds between the snapshot and its restore, in which the evolutions go on.
_BETWEEN = 8.0


class RestoreRun(Run):
    """A run of a scenario whose cluster goes back in time.

    Parameters
    ----------
    world
        The lane that it uses, not started.
    expected
        The end of each kind of evolution in the reference run.
    cluster
        The cluster, which no other scenario uses.
    """

    def __init__(self, world: World, expected: Mapping[str, Json], cluster: Cluster) -> None:
        super().__init__(world, expected)
        self._cluster = cluster

    def act(self) -> None:
        """Create the evolutions, take a snapshot, restore it later, and wait for the ends."""
        world = self.world
        for evolution in self.scenario.evolutions:
            with world.namespace_lock:
                world.create(evolution.name)
        self._wait_for_writes(len(self.scenario.evolutions) * 4)
        snapshot = world.folder / "snapshot"
        snapshots.take(self._cluster, snapshot)
        time.sleep(_BETWEEN)
        self.heal()
        world.recorder.stop()
        snapshots.restore(self._cluster, snapshot)
        # what is recorded of the time after the snapshot has not happened any more
        world.kubelet.forget()
        causes = world.recording.by_hand
        world.recorder = Recorder(world.kube, world.namespaces, world.kubelet.pod)
        world.recording = world.recorder.recording
        world.recording.by_hand = causes
        world.recording.lost = True
        world.recorder.start()
        self.verdict.applied.append("etcd-restored")
        self._suspend_again()
        self.wait_for_end(END_SECONDS + 60.0)

    def _suspend_again(self) -> None:
        """Suspend and resume as before the restore: the user's edits are lost with the data."""
        world = self.world
        for evolution in self.scenario.evolutions:
            suspend = evolution.name in world.suspended
            item = world.insist(partial(world.edit, evolution.name, {}))
            if item is not None and bool(item["spec"].get("suspend")) != suspend:
                world.insist(partial(world.edit, evolution.name, {"suspend": suspend}))

    def _wait_for_writes(self, number: int) -> None:
        deadline = time.monotonic() + 60.0
        while len(self.world.faults.writes) < number and time.monotonic() < deadline:
            time.sleep(0.1)
