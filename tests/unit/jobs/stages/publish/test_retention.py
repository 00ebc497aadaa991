"""Models are removed as `storage.keep` says, and never one that is needed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.unit.jobs.stages.publish.planned_runs import (
    Killed,
    MemoryStore,
    PlannedRun,
    context_of,
    publish,
)
from tests.unit.operator.planner.simulated_world import spec_of

from selfemo_api.contract import GenerationOutcome, RunOutcomes, StageConfig
from selfemo_api.spec import Keep
from selfemo_api.stages import Stage
from selfemo_api.status import Best, EvolutionStatus, Outcome
from selfemo_jobs.models.best_manifest import BestManifest, best_uri
from selfemo_jobs.models.run_models import RunModel, parse_run_model
from selfemo_jobs.stages.publish.retention import models_to_remove, remove_models
from selfemo_jobs.store import Store, join
from selfemo_operator.planner import pinning
from selfemo_operator.planner.types import Failure

RUN = "s3://bucket/runs/default/demo-01234567"
TEN = (0.30, 0.35, 0.32, 0.33, 0.41, 0.40, 0.39, 0.44, 0.42, 0.43, 0.41)


def model(generation: int, run: str = RUN) -> RunModel:
    return RunModel(run, generation, Stage.TRAIN if generation else Stage.WARM_START)


def outcomes(
    best: int,
    *,
    last: int,
    outcome: Outcome = Outcome.ROLLED_BACK,
    baseline: str = "file:///model",
    following: int | None = None,
) -> RunOutcomes:
    return RunOutcomes(
        best=Best(generation=best, f1=0.5, model_uri=model(best).uri),
        generations=[
            GenerationOutcome(generation=last, outcome=outcome, model_uri=model(last).uri)
        ],
        baseline_uri=baseline,
        next_policy_uri=model(best if following is None else following).uri,
    )


def removed(
    keep: Keep, known: RunOutcomes, generation: int, *, stored: int = 6, named: str = ""
) -> list[int]:
    models = {number: model(number) for number in range(stored + 1)}
    found = models_to_remove(models, known, keep, generation, [named])
    return [m.generation for m in found]


def test_what_each_value_keeps() -> None:
    known = outcomes(2, last=4)
    assert removed(Keep.ALL, known, 4) == []
    assert removed(Keep.BEST, known, 4) == [0, 1, 3, 4]
    assert removed(Keep.LAST, known, 4) == [0, 1, 3]


def test_the_baseline_stays() -> None:
    known = outcomes(2, last=4, baseline=model(0).uri)
    assert removed(Keep.BEST, known, 4) == [1, 3, 4]


def test_a_model_that_is_continued_stays_whatever_was_edited_since() -> None:
    known = outcomes(2, last=4, outcome=Outcome.CONTINUED, following=4)
    assert removed(Keep.BEST, known, 4) == [0, 1, 3]
    # an edit to RollBack after a failed attempt, which may be taken back
    assert removed(Keep.BEST, outcomes(2, last=4, outcome=Outcome.CONTINUED), 4) == [0, 1, 3]
    assert removed(Keep.BEST, outcomes(2, last=4, following=3), 4) == [0, 1, 4]


def test_later_generations_stay() -> None:
    assert removed(Keep.BEST, outcomes(2, last=3), 3) == [0, 1, 3]


def test_what_the_best_manifest_names_stays() -> None:
    known = outcomes(2, last=5)
    assert removed(Keep.BEST, known, 5, named="generations/004/train/model") == [0, 1, 3, 5]
    assert removed(Keep.BEST, known, 5, named=model(4).uri) == [0, 1, 3, 5]
    other = model(4, "s3://bucket/runs/default/other-01234567").uri
    assert removed(Keep.BEST, known, 5, named=other) == [0, 1, 3, 4, 5]


def test_a_manifest_of_the_generation_and_a_moved_run_count_too() -> None:
    manifest = f"{RUN}/generations/003/evaluate/manifest.json"
    assert removed(Keep.BEST, outcomes(2, last=5), 5, named=manifest) == [0, 1, 4, 5]
    moved = model(3, "file:///elsewhere/default/demo-01234567").uri
    assert removed(Keep.BEST, outcomes(2, last=5), 5, named=moved) == [0, 1, 4, 5]


def ten_generations(**changes: Any) -> PlannedRun:
    spec = spec_of(stopping={"maxGenerations": 10, "patience": 9}, **changes)
    run = PlannedRun(spec, TEN)
    run.settle()
    assert run.status.generation == 10
    assert run.best_generation() == 7
    kinds = Counter(config.stage for config in run.configs)
    assert kinds[Stage.PUBLISH] == 11
    return run


@pytest.mark.parametrize(
    ("keep", "warm_start", "left"),
    [
        ("Best", 0, [7]),
        ("Last", 0, [7, 10]),
        ("All", 0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("Best", 100, [0, 7]),
    ],
)
def test_after_ten_generations_with_rollbacks(keep: str, warm_start: int, left: list[int]) -> None:
    run = ten_generations(storage={"keep": keep}, warmStart={"steps": warm_start})
    assert list(run.models()) == left
    for generation in left:
        assert run.is_whole(run.models()[generation].uri)


def test_manifests_and_all_other_objects_stay() -> None:
    everything = ten_generations(storage={"keep": "All"}).store.objects
    left = ten_generations(storage={"keep": "Best"}).store.objects
    gone = {uri for uri in everything if uri not in left}
    assert gone
    assert all("/train/model/" in uri for uri in gone)
    records = {uri for uri in left if uri not in everything}
    assert records == {join(model(g).stage_uri, "removed.json") for g in (*range(1, 7), 8, 9, 10)}
    same = [uri for uri in left if uri in everything and "/publish/" not in uri]
    assert all(left[uri] == everything[uri] for uri in same)


def test_an_edit_removes_what_was_kept_before() -> None:
    run = ten_generations(storage={"keep": "All"})
    run.edit(storage={"keep": "Best"}, stopping={"maxGenerations": 11})
    run.settle()
    assert list(run.models()) == [7]
    run.edit(storage={"keep": "All"}, stopping={"maxGenerations": 12})
    run.settle()
    assert list(run.models()) == [7, 12]


@pytest.mark.parametrize("keep", ["All", "Best"])
def test_a_model_of_an_attempt_that_did_not_end_the_stage_is_removed(keep: str) -> None:
    """Attempts that overlapped wrote several models, of which the manifest names one."""
    run = ten_generations(storage={"keep": keep})
    unused = RunModel(run.run_uri, 7, Stage.TRAIN, "model-0123456789ab")
    run.store.put(join(unused.uri, "model.safetensors"), b"of another attempt")
    run.edit(stopping={"maxGenerations": 11})
    run.settle()
    assert run.best_generation() == 7
    assert bool(run.store.list(unused.uri)) == (keep == "All")
    assert not run.store.exists(unused.removed_uri), "the model of the manifest was removed"


def test_models_of_attempts_that_are_not_known_to_have_ended_stay() -> None:
    run = ten_generations(storage={"keep": "Best"})
    for name in ("model-0123456789ab", "model-ba9876543210"):
        left = RunModel(run.run_uri, 12, Stage.TRAIN, name)
        run.store.put(join(left.uri, "model.safetensors"), b"of an attempt")
    run.edit(stopping={"maxGenerations": 11})
    run.settle()
    assert run.best_generation() == 7
    names = {uri.split("/")[-2] for uri in run.store.objects if "/generations/012/" in uri}
    assert names == {"model-0123456789ab", "model-ba9876543210"}


@pytest.mark.parametrize("keep", ["Best", "Last"])
def test_a_removal_that_is_killed_at_any_write_is_completed(keep: str) -> None:
    expected = ten_generations(storage={"keep": keep})
    config = next(
        c for c in expected.configs if c.stage is Stage.PUBLISH and c.generation == 7
    )  # generation 7 is promoted, and those before are removed
    before = MemoryStore()

    def stop(given: StageConfig, store: Store) -> None:
        if given.generation == 7 and not before.objects:
            before.objects.update(run.store.objects)
        publish(given, store)

    run = PlannedRun(
        spec_of(stopping={"maxGenerations": 7, "patience": 9}, storage={"keep": "All"}),
        TEN,
        publishes=stop,
    )
    run.settle()
    writes = 0
    while True:
        store = MemoryStore(dict(before.objects), writes)
        run.store = store
        try:
            publish(config, store)
        except Killed:
            writes += 1
            assert run.best_generation() in {4, 7}
            store.writes_left = None
            publish(config, store)
        else:
            break
        assert run.best_generation() == 7
        assert list(run.models()) == [7]
    assert writes == 1 + 6 * 4  # the best manifest; for each model a record and three files


def test_a_model_that_appears_again_is_removed_again() -> None:
    """A pod of Train that was believed to be dead may upload its model once more."""
    run = ten_generations(storage={"keep": "Best"})
    run.store.put(join(model(3).uri, "model.safetensors"), b"late")
    config = run.configs[-1]
    context = context_of(config, run.store)
    best = BestManifest(run=config.run, generation=7, f1=0.4, model=model(7).uri)
    assert config.outcomes is not None
    output = remove_models(context, config.outcomes, best)
    assert list(run.models()) == [7]
    assert output.metrics == {"removedModels": 9.0}


# Random histories -----------------------------------------------------------------------------

EDITS: tuple[dict[str, Any], ...] = (
    *({"storage": {"keep": keep}} for keep in ("All", "Best", "Best", "Last")),
    *({"promotion": {"onRegression": what}} for what in ("RollBack", "Continue", "Stop")),
    *({"promotion": {"minDelta": delta}} for delta in (0.0, 0.1)),
    *({"reward": {"judge": {"model": judge}}} for judge in ("Baseline", "Best", "Policy")),
    *({"training": {"start": start}} for start in ("Best", "Baseline")),
    *({"stopping": {"maxGenerations": number, "goal": None}} for number in (3, 5, 7)),
    *({"stopping": {"patience": number}} for number in (1, 4)),
    {"stopping": {"goal": 0.8}},
    {"warmStart": {"steps": 0}},
    {"warmStart": {"steps": 100}},
)


@dataclass
class History:
    """A random history of one run. `World.check` holds after each of its events."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        draw = self.random
        collapses = draw.random() < 0.3
        stages = (Stage.SELF_PLAY, Stage.SCORE, Stage.EVALUATE)
        changes: dict[str, Any] = {}
        for edit in draw.sample(EDITS, 5):
            changes.update(edit)
        changes["storage"] = {"keep": draw.choice(["Best", "Best", "Last", "All"])}
        changes["stopping"] = {"maxGenerations": draw.randint(3, 6), "patience": 4}
        self.run = PlannedRun(
            spec_of(**changes, failurePolicy={"maxAttempts": 3, "maxDisruptions": 4}),
            tuple(draw.randrange(20) / 20 for _ in range(7)),
            frozenset({(draw.randint(1, 4), draw.choice(stages))} if collapses else ()),
            publishes=self.publish,
        )
        self.run.failing = self.failure
        self.backups: list[tuple[int, EvolutionStatus]] = []
        self.restored_from: int | None = None

    def go(self, steps: int = 150) -> None:
        """Let things happen; at the end, nothing more goes wrong."""
        draw = self.random
        for _ in range(steps):
            event = draw.random()
            if event < 0.06:
                self.edit()
            elif event < 0.09:
                self.backups.append((self.run.generation, self.run.status))
            elif event < 0.105 and self.backups:
                self.restored_from, status = draw.choice(self.backups)
                self.run.restore(status)
                self.counts["restored"] += 1
            elif event < 0.13:
                self.late_pod()
            moved = self.step()
            if moved is None:
                return
            if not moved:
                if draw.random() < 0.3:
                    return
                self.counts["reopened"] += 1
                self.edit()
        self.check()

    def edit(self) -> None:
        self.run.edit(**self.random.choice(EDITS))
        self.counts["edits"] += 1

    def step(self) -> bool | None:
        """Run one step; None if a restored and edited run needs what was removed."""
        try:
            return self.run.step()
        except AssertionError:
            restored = self.restored_from
            if restored is not None and restored != self.run.generation:
                self.counts["lost after a restore and an edit"] += 1
                return None
            raise

    def late_pod(self) -> None:
        """Let the pod of an earlier attempt of Publish do its work now."""
        earlier = [c for c in self.run.configs if c.stage is Stage.PUBLISH]
        if earlier:
            publish(self.random.choice(earlier), self.run.store)
            self.counts["late pods"] += 1
            self.check()

    def publish(self, config: StageConfig, store: Store) -> None:
        """Publish, and perhaps be killed; then check what is left."""
        draw, memory = self.random, self.run.store
        if draw.random() < 0.5:
            memory.writes_left = draw.randrange(6)
        before = set(self.run.models())
        try:
            publish(config, store)
        except Killed:
            self.counts["killed"] += 1
            raise
        finally:
            memory.writes_left = None
            self.check()
        self.counts["published"] += 1
        gone = before - set(self.run.models())
        self.counts["removed"] += len(gone)
        keep = config.spec.storage.keep
        assert not gone or keep is not Keep.ALL
        if keep is not Keep.ALL:
            left = {g for g in self.run.models() if g <= config.generation}
            assert left <= self.promised(config), (left, self.promised(config))

    def promised(self, config: StageConfig) -> set[int | None]:
        """Return the generations whose models may be left."""
        known = config.outcomes
        assert known is not None
        last = known.generations[-1]
        uris = [known.best.model_uri, known.baseline_uri, known.next_policy_uri]
        if config.spec.storage.keep is Keep.LAST or last.outcome is Outcome.CONTINUED:
            uris.append(last.model_uri)
        models = [parse_run_model(uri) for uri in uris]
        named = self.run.best_generation()
        return {named, *(m.generation for m in models if m is not None)}

    def failure(self, config: StageConfig) -> Failure | None:
        """Let some attempts of Publish fail after their work: only an edit helps then."""
        if config.stage is Stage.PUBLISH and self.random.random() < 0.05:
            self.counts["failed"] += 1
            return Failure("it may not be written", exit_code=2)
        return None

    def check(self) -> None:
        """Check that the best manifest names a whole model."""
        self.run.best_generation()


def histories(seeds: range) -> Counter[str]:
    """Run random histories; return what has happened in them."""
    counts: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pinning, "_problems", lambda *_: "")  # all specs are valid: it takes long
        for seed in seeds:
            history = History(seed)
            try:
                history.go()
            except AssertionError as error:
                raise AssertionError(f"history {seed}: {error}") from error
            counts += history.counts
            counts["generations"] += history.run.status.generation
    return counts


def check_that_much_happened(counts: Counter[str], number: int) -> None:
    for what in ("edits", "published", "removed", "generations"):
        assert counts[what] > number, (what, counts)
    for what in ("killed", "reopened", "late pods"):
        assert counts[what] > number / 3, (what, counts)
    for what in ("restored", "failed"):
        assert counts[what] > number / 10, (what, counts)
    assert counts["lost after a restore and an edit"] < number / 50, counts


def test_random_histories_lose_nothing_that_is_needed() -> None:
    check_that_much_happened(histories(range(80)), 80)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 10_000, 1000))
def test_ten_thousand_random_histories_lose_nothing_that_is_needed(start: int) -> None:
    check_that_much_happened(histories(range(start, start + 1000)), 1000)


@pytest.mark.parametrize(
    "broken",
    [
        lambda known: known.model_copy(update={"baseline_uri": "file:///model"}),
        lambda known: known.model_copy(
            update={"best": known.best.model_copy(update={"model_uri": "file:///model"})}
        ),
    ],
    ids=["the baseline is forgotten", "the best is forgotten"],
)
def test_the_histories_would_find_a_mistake(
    broken: Callable[[RunOutcomes], RunOutcomes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfemo_jobs.stages.publish import retention

    original = retention.models_to_remove

    def mistaken(stored: Any, known: RunOutcomes, *more: Any, named: Any) -> list[RunModel]:
        return original(stored, broken(known), *more, named=())

    monkeypatch.setattr(retention, "models_to_remove", mistaken)
    with pytest.raises(AssertionError, match="was removed"):
        histories(range(300))


def test_the_best_manifest_is_at_the_same_place() -> None:
    run = ten_generations(storage={"keep": "Best"})
    assert run.store.exists(best_uri(RUN))
