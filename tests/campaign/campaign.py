"""A campaign: scenarios by number on several lanes, with a journal, until its time is over."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfemo_operator.controller.kube.client import KubeClient
from tests.campaign.catalog import KINDS
from tests.campaign.field_run import FieldRun
from tests.campaign.forms import generated
from tests.campaign.journal import Journal
from tests.campaign.model import Evolution, Scenario, Verdict
from tests.campaign.operators import ROOT, Launcher
from tests.campaign.restore_run import RestoreRun
from tests.campaign.runner import Run
from tests.campaign.shrinking import shrunk
from tests.campaign.world import World
from tests.integration.operator.api import serve_crd
from tests.support.cluster import Cluster, borrowed

Json = dict[str, Any]
BUILD = ROOT / "build" / "campaign"
CONNECTIONS = 96
#: Violations of a scenario that are printed; the journal has all.
_SHOWN = 8


@dataclass(frozen=True)
class Settings:
    """What the scenarios of a campaign follow from."""

    seed: int = 1
    size: int = 12
    density: float = 2.5

    form: str | None = None

    def to_json(self) -> Json:
        """Return the settings as JSON."""
        return dataclasses.asdict(self)

    def scenario(self, number: int) -> Scenario:
        """Return the scenario of a number."""
        return generated(number, self.seed, self.size, self.density, self.form)


class Campaign:
    """Runs scenarios against one cluster.

    Parameters
    ----------
    cluster
        The cluster.
    defect
        The name of a defect to put back, or None.
    """

    def __init__(self, cluster: Cluster, defect: str | None = None) -> None:
        self.cluster = cluster
        self.launcher = Launcher(defect)
        self.name = f"c{secrets.token_hex(3)}"
        self.expected: dict[str, Json] = {}
        self._runs = itertools.count()
        serve_crd(self._client())

    def close(self) -> None:
        """End the launcher and its operators."""
        self.launcher.stop()

    def reference(self) -> Verdict:
        """Run one evolution of each kind without perturbations; keep how each ends."""
        evolutions = tuple(
            Evolution(f"{k}-{i}", i % 2) for i, k in enumerate(KINDS) if k != "field"
        )
        run = self._run(Scenario(-1, 0, evolutions, ()))
        self.expected = run.end_states()
        return run.verdict

    def run(self, scenario: Scenario) -> Verdict:
        """Run a scenario; return the verdict."""
        return self._run(scenario).verdict

    def _run(self, scenario: Scenario) -> Run:
        number = next(self._runs)
        folder = BUILD / "logs" / f"{self.name}-{number}"
        folder.mkdir(parents=True)
        prefix = f"{self.name}-{number}"
        run: Run
        if scenario.form == "restore":
            run = self._restored(scenario, folder, prefix)
        else:
            world = World(self._client(), self.launcher, scenario, folder, prefix)
            kind = FieldRun if scenario.form == "fields" else Run
            run = kind(world, self.expected)
            run.run()
        if run.verdict.violations:
            run.verdict.facts["logs"] = str(folder.relative_to(ROOT))
            recorded = json.dumps(run.world.recording.dump(), indent=1)
            (folder / "recording.json").write_text(recorded)
        else:
            shutil.rmtree(folder)
        return run

    def _restored(self, scenario: Scenario, folder: Path, prefix: str) -> Run:
        """Run a scenario on a cluster of its own, which goes back in time."""
        with borrowed(True, BUILD / f"cluster-{prefix}") as cluster:
            kube = KubeClient(connections=CONNECTIONS, kubeconfig=str(cluster.kubeconfig))
            serve_crd(kube)
            world = World(kube, self.launcher, scenario, folder, prefix)
            run = RestoreRun(world, self.expected, cluster)
            run.run()
        shutil.rmtree(cluster.folder, ignore_errors=True)
        return run

    def _client(self) -> KubeClient:
        return KubeClient(connections=CONNECTIONS, kubeconfig=str(self.cluster.kubeconfig))


@contextlib.contextmanager
def campaign(defect: str | None = None) -> Iterator[Campaign]:
    """Start a campaign's cluster, or use it if it runs, and close the campaign afterwards."""
    with borrowed(True, BUILD / "cluster") as cluster:
        opened = Campaign(cluster, defect)
        try:
            yield opened
        finally:
            opened.close()


def run_lanes(
    this: Campaign,
    settings: Settings,
    journal: Journal,
    lanes: int,
    until: float,
    *,
    first_violation: bool = False,
) -> None:
    """Run scenarios by number, several at the same time, until a time (monotonic).

    Parameters
    ----------
    this
        The campaign, with its reference.
    settings
        What the scenarios follow from.
    journal
        The journal. Scenarios that it has are left out.
    lanes
        The number of scenarios at the same time.
    until
        The time from which no scenario is started.
    first_violation
        Whether to stop after the first violation.
    """
    numbers = (number for number in itertools.count() if number not in journal.done)
    lock = threading.Lock()
    stop = threading.Event()
    started = time.monotonic()
    before = journal.totals.perturbations

    def work() -> None:
        while time.monotonic() < until and not stop.is_set():
            with lock:
                number = next(numbers)
            verdict = this.run(settings.scenario(number))
            journal.add(verdict)
            minutes = (time.monotonic() - started) / 60
            rate = (journal.totals.perturbations - before) / minutes
            print(
                f"{number}: {len(verdict.applied)} perturbations, {verdict.checks} checks, "
                f"{verdict.seconds:.0f} s; {rate:.0f} perturbations a minute",
                flush=True,
            )
            for violation in verdict.violations[:_SHOWN]:
                print(f"   {violation}"[:600], flush=True)
            if verdict.violations and first_violation:
                stop.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def shrink(this: Campaign, scenario: Scenario, seconds: float) -> Path | None:
    """Shrink a scenario; return the file of the smaller one, or None if it did not fail again."""
    verdict = this.run(scenario)
    oracles = {violation.oracle for violation in verdict.violations}
    if not oracles:
        return None
    print(f"it fails again: {sorted(oracles)}", flush=True)

    def fails(candidate: Scenario) -> bool:
        got = this.run(candidate)
        same = any(violation.oracle in oracles for violation in got.violations)
        parts = f"{len(candidate.perturbations)} perturbations, {len(candidate.evolutions)}"
        print(f"   {parts} evolutions: {'fails' if same else 'holds'}", flush=True)
        return same

    small = shrunk(scenario, fails, seconds)
    path = BUILD / f"shrunk-{scenario.seed}-{scenario.number}.json"
    path.write_text(json.dumps(small.to_json(), indent=1))
    return path
