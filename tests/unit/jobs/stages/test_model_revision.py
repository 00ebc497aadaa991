"""Which hub revision each stage asks for: `model.revision` belongs to `model.uri` alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from tests.unit.jobs.stages.score.candidates import recognizer
from tests.unit.jobs.stages.score.candidates import table as candidates_table
from tests.unit.jobs.stages.train.kept_tables import kept_table

from selfemo_api.contract import StageConfig
from selfemo_api.spec import EvolutionSpec, StorageSpec
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, Part
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.tables import encode_table
from selfemo_jobs.stages.evaluate.stage import PROGRAM as EVALUATE
from selfemo_jobs.stages.score.stage import PROGRAM as SCORE
from selfemo_jobs.stages.selfplay.stage import PROGRAM as SELF_PLAY
from selfemo_jobs.stages.train.stage import PROGRAM as TRAIN
from selfemo_jobs.store import Store, join, open_store
from selfemo_jobs.store.hashing import sha256

BASE, OTHER, REVISION = "hf://mine/base", "hf://other/base", "0123abc"

#: The stages that load a model: the program, and whether the model is the policy or the judge.
LOADS = {
    "self-play": (SELF_PLAY, "policy"),
    "score": (SCORE, "judge"),
    "evaluate": (EVALUATE, "policy"),
    "train": (TRAIN, "policy"),
    "train, reference": (TRAIN, "judge"),
}


class FetchedError(Exception):
    """Ends the stage where it would download a model."""


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """The name and the revision of each model that is asked of the hub."""
    calls: list[tuple[str, str | None]] = []

    def snapshot_download(name: str, *, revision: str | None, **_options: Any) -> str:
        calls.append((name, revision))
        raise FetchedError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


@pytest.fixture
def load(
    make_spec: Callable[..., EvolutionSpec],
    make_config: Callable[..., StageConfig],
    tiny_model: Path,
    tmp_path: Path,
) -> Callable[..., None]:
    """Run a stage until it downloads its model, which is given by a URI."""
    demo = tmp_path / "demo.jsonl"
    turns = (
        '[{"speaker": "Ann", "text": "Hi.", "labels": ["joy"]}, {"speaker": "Bo", "text": "Ha."}]'
    )
    demo.write_text(f'{{"id": "d1", "turns": {turns}}}\n')

    def run(
        program: StageProgram, role: str, uri: str, model: dict[str, Any] | None = None
    ) -> None:
        spec = make_spec(
            model={"uri": BASE, "revision": REVISION, **(model or {})}, training={"klBeta": 0.1}
        )
        uris = {"policy": tiny_model.as_uri(), "judge": tiny_model.as_uri(), role: uri}
        config = make_config(program.stage, spec=spec, **uris)
        store = open_store(spec.storage)
        config = config.model_copy(update={"parents": parents(store, config, tiny_model)})
        with pytest.raises(FetchedError):
            program.work(StageContext(config, store, 0, 1, tmp_path / "work"))

    return run


def parents(store: Store, config: StageConfig, model: Path) -> dict[str, str]:
    """Write the results that the score and the train stage read; return their manifests."""
    tables = {
        Stage.SELF_PLAY: candidates_table(recognizer("u1", [["joy"]] * 4)),
        Stage.FLYWHEEL: kept_table(model, 2, 4),
    }
    uris = {}
    for stage, table in tables.items():
        folder = join(config.output.rsplit("/", 1)[0], stage.slug)
        data = encode_table(table)
        store.put(join(folder, "part-00000.parquet"), data)
        part = Part(path="part-00000.parquet", sha256=sha256(data), size=len(data))
        uris[stage.slug] = put_manifest(store, folder, config.run, stage, 1, parts=[part])
    return uris


def put_manifest(
    store: Store, folder: str, run: str, stage: Stage, generation: int, **fields: Any
) -> str:
    manifest = Manifest(
        run=run,
        stage=stage,
        generation=generation,
        seed=1,
        config_sha256="0" * 64,
        **{"config": {}, **fields},
    )
    store.put(join(folder, MANIFEST), manifest.encode())
    return join(folder, MANIFEST)


@pytest.mark.parametrize("case", LOADS)
def test_the_revision_of_the_given_model(
    case: str, load: Callable[..., None], downloads: list[tuple[str, str | None]]
) -> None:
    program, role = LOADS[case]
    load(program, role, BASE)
    assert downloads == [("mine/base", REVISION)]


@pytest.mark.parametrize("case", LOADS)
@pytest.mark.parametrize("resumed", [OTHER, BASE])
@pytest.mark.parametrize("recorded", [None, "feedbac"])
def test_the_revision_under_resume_from(
    case: str,
    resumed: str,
    recorded: str | None,
    load: Callable[..., None],
    downloads: list[tuple[str, str | None]],
    tmp_path: Path,
) -> None:
    """The model that another run measured has the revision that the other run recorded."""
    program, role = LOADS[case]
    run = "default/first-00000001"
    folder = f"file://{tmp_path}/store/{run}/{stage_prefix(0, Stage.EVALUATE)}"
    store = open_store(StorageSpec(uri=f"file://{tmp_path}/store"))
    config = {"policyUri": resumed, "model.revision": recorded}
    manifest = put_manifest(store, folder, run, Stage.EVALUATE, 0, config=config)
    load(program, role, manifest, model={"resumeFrom": manifest})
    assert downloads == [(resumed.removeprefix("hf://"), recorded)]
