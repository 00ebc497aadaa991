"""Runs that the real planner drives, over a store in memory that can be killed at each write.

Only the stages are made up: they write manifests and models of a few bytes. Publish is the real
one, as far as models and the best manifest go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.unit.operator.planner.simulated_world import START, merged, result_of, score_of, spec_of

from selfemo_api.contract import StageConfig
from selfemo_api.evolution import EmotionEvolution, Metadata
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec, StorageSpec
from selfemo_api.stages import Stage
from selfemo_api.status import EvolutionStatus
from selfemo_jobs.models.best_manifest import best_uri, parse_best_manifest
from selfemo_jobs.models.model_description import describe
from selfemo_jobs.models.resume import resumed_model
from selfemo_jobs.models.run_models import RunModel, parse_run_model
from selfemo_jobs.models.stage_models import put_description
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import Manifest, Part
from selfemo_jobs.stages.publish.best import update_best
from selfemo_jobs.stages.publish.retention import remove_models
from selfemo_jobs.stages.publish.stage import outcomes_of
from selfemo_jobs.store import ObjectInfo, ObjectNotFound, Store, join
from selfemo_jobs.store.hashing import sha256
from selfemo_operator.planner.plan import plan
from selfemo_operator.planner.types import (
    CreateJob,
    DeleteJob,
    Failure,
    JobState,
    Observed,
    StageJob,
)

STORAGE = "s3://bucket/runs"
#: The files of a made-up model.
FILES = ("config.json", "model.safetensors", "tokenizer.json")


class Killed(BaseException):
    """Stands in for SIGKILL: nothing is cleaned up by it."""


@dataclass
class MemoryStore:
    """A :class:`~selfemo_jobs.store.Store` in memory. The removal of an object is a write."""

    objects: dict[str, bytes] = field(default_factory=dict)
    writes_left: int | None = None
    """The number of writes until it is killed. None: it is not."""
    storage: StorageSpec = field(default_factory=lambda: StorageSpec(uri=STORAGE))

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        return self.replace(uri, data, None)

    def put(self, uri: str, data: bytes) -> None:
        self._write()
        self.objects[uri] = data

    def replace(self, uri: str, data: bytes, expected: bytes | None) -> bool:
        if self.objects.get(uri) == expected:
            self.put(uri, data)
            return True
        return self.objects.get(uri) == data

    def get(self, uri: str) -> bytes:
        try:
            return self.objects[uri]
        except KeyError:
            raise ObjectNotFound(uri) from None

    def get_start(self, uri: str, length: int) -> bytes:
        return self.get(uri)[:length]

    def exists(self, uri: str) -> bool:
        return uri in self.objects

    def list(self, prefix: str) -> list[ObjectInfo]:
        below = f"{prefix.rstrip('/')}/"
        uris = sorted(uri for uri in self.objects if uri.startswith(below))
        return [ObjectInfo(uri, len(self.objects[uri])) for uri in uris]

    def remove(self, prefix: str) -> int:
        infos = self.list(prefix)
        for info in infos:
            self.delete(info.uri)
        return len(infos)

    def older_versions(self, prefix: str) -> int:
        return 0

    def delete(self, uri: str) -> None:
        self._write()
        self.objects.pop(uri, None)

    def upload(self, path: Path, uri: str) -> None:
        raise NotImplementedError

    def download(self, uri: str, path: Path) -> None:
        raise NotImplementedError

    def _write(self) -> None:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise Killed


def context_of(config: StageConfig, store: Store) -> StageContext:
    """Return the context of a stage without a scratch folder."""
    return StageContext(config, store, 0, 1, Path("/nowhere"))


def publish(config: StageConfig, store: Store) -> None:
    """Do the duties of Publish that concern models."""
    context = context_of(config, store)
    outcomes = outcomes_of(context)
    best = update_best(context, outcomes.best)
    remove_models(context, outcomes, best)


@dataclass
class PlannedRun:
    """One evolution, its status, and the stages that the planner starts.

    `publishes` may be replaced: it is what Publish does with the store.
    """

    spec: EvolutionSpec = field(default_factory=spec_of)
    f1s: tuple[float, ...] = (0.3, 0.4, 0.5)
    """Weighted F1 by generation; the last one holds for all later ones."""
    collapses: frozenset[tuple[int, Stage]] = frozenset()
    store: Store = field(default_factory=MemoryStore)
    publishes: Callable[[StageConfig, Store], StageResult | None] = publish
    described: bool = False
    """Whether a model has its description and its card, as the stages that train write them."""
    status: EvolutionStatus = field(default_factory=EvolutionStatus)
    generation: int = 1
    """`metadata.generation`."""
    results: dict[tuple[int, Stage], StageResult] = field(default_factory=dict)
    """The results whose manifests are stored."""
    configs: list[StageConfig] = field(default_factory=list)
    """The configuration of each attempt that was started."""
    failing: Callable[[StageConfig], Failure | None] = lambda _: None
    """Returns how an attempt fails, or None. The stage's work is done before."""

    def __post_init__(self) -> None:
        self._now = START
        self._jobs: dict[str, StageJob] = {}

    @property
    def evolution(self) -> EmotionEvolution:
        """The resource."""
        return EmotionEvolution(
            metadata=Metadata(name="demo", uid="0123456789ab", generation=self.generation),
            spec=self.spec,
            status=self.status,
        )

    @property
    def run_uri(self) -> str:
        """The URI of the run's folder."""
        return f"{self.spec.storage.uri}/{self.evolution.run}"

    def edit(self, **changes: Any) -> None:
        """Edit the spec; camelCase parts."""
        spec = EvolutionSpec.model_validate(merged(self.spec.to_json(), changes))
        if spec != self.spec:
            self.spec, self.generation = spec, self.generation + 1

    def restore(self, status: EvolutionStatus) -> None:
        """Put back an old status; the Jobs since then are gone."""
        self.status = status
        self._jobs.clear()

    def step(self) -> bool:
        """Run one pass and the stage that it starts; return whether anything moved."""
        decision = plan(self.evolution, Observed(tuple(self._jobs.values())), self._now)
        before, self.status = self.status, decision.status
        match decision.action:
            case CreateJob() as action:
                self._jobs[action.name] = self._run(action)
            case DeleteJob(name=name):
                del self._jobs[name]
            case _:
                if decision.requeue_at is None or self.status.finished:
                    return self.status != before
                self._now = max(self._now + timedelta(seconds=1), decision.requeue_at)
        return True

    def settle(self, limit: int = 2000) -> None:
        """Go on until the run is at rest."""
        for _ in range(limit):
            if not self.step():
                return
        raise AssertionError("not at rest")

    def _run(self, action: CreateJob) -> StageJob:
        config = action.config
        self.configs.append(config)
        failure, result = None, None
        try:
            result = self.perform(config)
        except Killed:
            failure = Failure("killed", disrupted=True)
        failure = self.failing(config) or failure
        return StageJob(
            name=action.name,
            generation=config.generation,
            stage=config.stage,
            attempt=action.attempt,
            state=JobState.FAILED if failure else JobState.SUCCEEDED,
            result=None if failure else result,
            failure=failure,
            create_time=self._now,
            start_time=self._now,
        )

    def perform(self, config: StageConfig) -> StageResult:
        """Do what a stage does: read its models, write its own and its manifest."""
        key = (config.generation, config.stage)
        if config.stage is Stage.PUBLISH:
            published = self.publishes(config, self.store)
            if published is not None:
                return published
        elif key in self.results:
            return self.results[key].model_copy(update={"reused": True})
        else:
            self.read_models(config)
        f1 = self.f1s[min(config.generation, len(self.f1s) - 1)]
        result = result_of(config.generation, config.stage, f1, folder=self.run_uri)
        if key in self.collapses:
            result = result.model_copy(update=_collapsed(config.stage, f1))
        parts = self._write_model(config, result.model_uri) if result.model_uri else []
        manifest = Manifest(
            run=config.run,
            stage=config.stage,
            generation=config.generation,
            seed=0,
            config_sha256="",
            config={},
            parts=parts,
            scores=result.scores,
            model="model" if result.model_uri else None,
        )
        self.store.put(result.manifest, manifest.encode())
        self.results[key] = result.model_copy(update={"manifest_sha256": sha256(manifest.encode())})
        return self.results[key]

    def _write_model(self, config: StageConfig, uri: str) -> list[Part]:
        """Write a model whose weights are those of its generation alone."""
        parts = []
        for name in FILES:
            data = _content(name, config.generation)
            self.store.put(join(uri, name), data)
            parts.append(Part(path=f"model/{name}", sha256=sha256(data), size=len(data)))
        if self.described:
            weights = {part.path.removeprefix("model/"): part.sha256 for part in parts}
            put_description(self.store, uri, describe(config, weights=weights))
        return parts

    def read_models(self, config: StageConfig) -> None:
        """Check that the models of a stage are whole."""
        for uri in {config.policy_uri, config.judge_uri}:
            assert self.is_whole(uri), f"{config.generation} {config.stage}: {uri} was removed"

    def is_whole(self, uri: str) -> bool:
        """Return whether a model is outside the run, or all its files are there."""
        model = parse_run_model(uri)
        if model is None:
            return True
        return all(self.store.exists(join(uri, name)) for name in FILES)

    def models(self) -> dict[int, RunModel]:
        """Return the models of which a file is stored, by generation."""
        folders = (info.uri.rpartition("/")[0] for info in self.store.list(self.run_uri))
        models = (parse_run_model(folder) for folder in folders)
        return {model.generation: model for model in models if model is not None}

    def best_generation(self) -> int | None:
        """Return the generation of the best manifest, whose model is whole; None without one."""
        uri = best_uri(self.run_uri)
        if not self.store.exists(uri):
            return None
        model, _ = resumed_model(uri, self.store)
        assert self.is_whole(model), f"the best model {model} was removed"
        return parse_best_manifest(self.store.get(uri), uri).generation


def _content(name: str, generation: int) -> bytes:
    """Return the bytes of a file: of the same size in each generation."""
    if name == "config.json":
        return b'{"model_type": "llama"}'
    if name == "tokenizer.json":
        return b"{}"
    header = b'{"__metadata__":{"generation":"%03d"}}' % generation
    return len(header).to_bytes(8, "little") + header


def _collapsed(stage: Stage, f1: float) -> dict[str, Any]:
    """Return the figures of a stage that are past the bounds."""
    figures: dict[Stage, dict[str, Any]] = {
        Stage.SELF_PLAY: {"metrics": {"diversity": 0.001}},
        Stage.SCORE: {"metrics": {"zeroVarianceShare": 0.999, "rewardMean": 0.9}},
        Stage.EVALUATE: {"scores": [score_of(f1, label_entropy=0.01)]},
    }
    return figures[stage]
