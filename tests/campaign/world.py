"""One lane of the campaign: two namespaces, a proxy, an operator, a fake kubelet, a recorder."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.campaign.catalog import KINDS, evolution_path, manifest
from tests.campaign.clock import shifted
from tests.campaign.faults import Faults
from tests.campaign.kubelet import Kubelet
from tests.campaign.model import Scenario
from tests.campaign.operators import Launcher, Operator
from tests.campaign.proxy import FaultProxy
from tests.campaign.recording import EvolutionRecord, Recorder
from tests.integration.operator.api import create_namespace, delete_namespace

Json = dict[str, Any]
RESYNC_SECONDS = 2.0


class World:
    """What perturbations act on.

    Parameters
    ----------
    kube
        A client of the API server itself, with an administrator's rights.
    launcher
        The launcher of operators.
    scenario
        The scenario.
    folder
        A folder for logs, which must exist.
    prefix
        The beginning of the names of its namespaces, which no other scenario uses.
    """

    def __init__(
        self, kube: KubeClient, launcher: Launcher, scenario: Scenario, folder: Path, prefix: str
    ) -> None:
        self.kube = kube
        self.launcher = launcher
        self.scenario = scenario
        self.folder = folder
        self.namespaces = [f"{prefix}-a", f"{prefix}-b"]
        self.faults = Faults()
        self.proxy = FaultProxy(kube, self.faults)
        self.kubelet = Kubelet(kube, self._purged)
        self.recorder = Recorder(kube, self.namespaces, self.kubelet.pod)
        self.recording = self.recorder.recording
        self.operators: list[Operator] = []
        self.expected_kinds: dict[str, str] = {}
        """The kind whose end an evolution must reach, where an edit has changed it."""
        self.suspended: set[str] = set()
        """The names of evolutions that a user has suspended until all others have ended."""
        self.threads: list[threading.Thread] = []
        self.namespace_lock = threading.Lock()
        """Held while a namespace is deleted and created again."""

    @property
    def operator(self) -> Operator:
        """The first operator."""
        return self.operators[0]

    def start(self) -> None:
        """Create the namespaces; start the recorder, the kubelet and an operator."""
        for namespace in self.namespaces:
            create_namespace(self.kube, namespace)
        self.recorder.start()
        self.kubelet.start()
        self._add_operators()
        if self.scenario.form != "cold":
            self.start_operators()

    def _add_operators(self) -> None:
        """Add the operators that the form of the scenario has, not started."""
        lease = self.scenario.form == "lease"
        environment = None
        if self.scenario.form == "clock":
            shift = 300 if self.scenario.number % 4 < 2 else -300
            environment = shifted(shift, self.folder.parent)
        self.add_operator("operator-0", lease=lease, environment=environment)
        if lease:
            self.add_operator("operator-1", lease=True)

    def start_operators(self) -> None:
        """Start the operators, and wait until the first is ready."""
        for operator in self.operators:
            operator.start()
        if not self.operator.wait_ready():
            raise AssertionError(f"the operator is not ready: {self.operator.tail()}")

    def add_operator(
        self, identity: str, *, lease: bool = False, environment: dict[str, str] | None = None
    ) -> Operator:
        """Add another operator at the same proxy; the caller starts it."""
        options = ["--resync-seconds", str(RESYNC_SECONDS), "--concurrency", "8"]
        for namespace in self.namespaces:
            options += ["--namespace", namespace]
        if lease:
            options += ["--lease-namespace", self.namespaces[0]]
        operator = Operator(
            self.launcher,
            self.proxy.kubeconfig(self.folder / "kubeconfig"),
            self.folder / f"{identity}.log",
            tuple(options),
            identity,
            environment,
            self.proxy.reset_connections,
        )
        self.operators.append(operator)
        return operator

    def leader(self) -> Operator:
        """Return the operator that holds the Lease, or the first one."""
        path = names.lease_path(self.namespaces[0], "selfemo-operator")
        try:
            holder = self.kube.get(path)["spec"].get("holderIdentity")
        except ApiError:
            return self.operator
        return next((o for o in self.operators if o.identity == holder), self.operator)

    def stop(self) -> list[int | None]:
        """Stop everything; return the exit codes of the operators."""
        codes = [operator.stop() for operator in self.operators]
        self.recorder.stop()
        self.kubelet.stop()
        self.proxy.stop()
        for namespace in self.namespaces:
            with contextlib.suppress(ApiError):
                delete_namespace(self.kube, namespace)
        return codes

    def kill_all(self) -> None:
        """Kill the operators, after an error of the campaign itself."""
        for operator in self.operators:
            operator.kill(restart=False)

    # What users do --------------------------------------------------------------------------------

    def namespace_of(self, name: str) -> str:
        """Return the namespace of an evolution of the scenario."""
        evolution = next(e for e in self.scenario.evolutions if e.name == name)
        return self.namespaces[evolution.namespace]

    def create(self, name: str) -> None:
        """Create an evolution of the scenario."""
        namespace = self.namespace_of(name)
        body = manifest(name, name.rpartition("-")[0], namespace)
        try:
            self.insist(lambda: self.kube.create(names.evolutions_path(namespace), body))
        except ApiError as error:
            if error.reason != "AlreadyExists":  # a request before was lost, and has created it
                raise

    def record_of(self, name: str) -> EvolutionRecord | None:
        """Return what is recorded of a living evolution."""
        with self.recorder.lock:
            return self.recording.named(self.namespace_of(name), name)

    def running(self, name: str) -> EvolutionRecord | None:
        """Return an evolution that has not ended: the one of a name, or the next one."""
        evolutions = self.scenario.evolutions
        first = next(i for i, e in enumerate(evolutions) if e.name == name)
        with self.recorder.lock:
            for evolution in (*evolutions[first:], *evolutions[:first]):
                record = self.recording.named(self.namespace_of(evolution.name), evolution.name)
                if record is None or KINDS[evolution.kind].refused or not record.versions:
                    continue
                if record.last.status.get("completionTime") is None:
                    return record
        return None

    def edit(self, name: str, spec: Json) -> Json | None:
        """Edit the spec of an evolution; return it, or None if it is gone."""
        path = evolution_path(self.namespace_of(name), name)
        try:
            return self.kube.patch(path, {"spec": spec})
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def delete(self, name: str) -> str | None:
        """Delete an evolution as a user does; return its uid, or None if it is gone."""
        path = evolution_path(self.namespace_of(name), name)
        try:
            item = self.kube.get(path)
        except ApiError:
            return None
        uid: str = item["metadata"]["uid"]
        with self.recorder.lock:
            self.recording.deletions[uid] = item["spec"]
        self.insist(lambda: self.kube.delete(path, uid))
        return uid

    def insist(self, action: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Repeat a request of the campaign until the API server accepts it."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return action()
            except ApiError as error:
                passing = error.status in (0, 429) or error.status >= 500
                if not passing or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def later(self, action: Callable[[], None], seconds: float = 0.0) -> None:
        """Run an action in a thread of its own, after some seconds."""

        def run() -> None:
            time.sleep(seconds)
            with contextlib.suppress(ApiError):
                self.insist(action)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)

    def _purged(self, run: str) -> None:
        with self.recorder.lock:
            self.recording.purged.append(run)
