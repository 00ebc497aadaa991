"""`spec.publish`: the best model is copied once, and no other file is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.writable_hub import WritableHub
from tests.unit.jobs.stages.publish.planned_runs import PlannedRun
from tests.unit.operator.planner.simulated_world import spec_of

from selfemo_api.contract import ENV_TERMINATION_LOG, ENV_WORK, ExitCode, StageConfig
from selfemo_api.spec import StorageSpec
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.best_manifest import BestManifest
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.stages.publish import copy_model as copy_module
from selfemo_jobs.stages.publish.best import update_best
from selfemo_jobs.stages.publish.copy_model import copy_best
from selfemo_jobs.stages.publish.description import add_scores
from selfemo_jobs.stages.publish.stage import outcomes_of
from selfemo_jobs.store import Store, open_store

F1S = (0.3, 0.4, 0.35, 0.5)
TOKEN = "hf_a-very-secret-token"


class Copies:
    """A run in a folder that copies its best model to `to`."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.outputs: list[StageOutput] = []
        self.target = f"{folder.as_uri()}/to"
        spec = {
            "stopping": {"maxGenerations": 3, "patience": 5},
            "storage": {"uri": f"{folder.as_uri()}/store"},
            "publish": self.target,
            **changes,
        }
        self.run = PlannedRun(
            spec_of(**spec),
            F1S,
            store=open_store(StorageSpec(uri=f"{folder.as_uri()}/store")),
            publishes=self.publish,
            described=True,
        )

    def context(self, config: StageConfig) -> StageContext:
        return StageContext(config, self.run.store, 0, 1, self.folder / "work")

    def publish(self, config: StageConfig, _store: Store) -> None:
        context = self.context(config)
        add_scores(context)
        best = outcomes_of(context).best
        self.outputs.append(copy_best(context, best, update_best(context, best)))

    def config(self, generation: int) -> StageConfig:
        return next(
            c for c in self.run.configs if c.stage is Stage.PUBLISH and c.generation == generation
        )

    def copied(self) -> dict[str, bytes]:
        """Return the files at the target."""
        folder = self.folder / "to"
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_promotion_replaces_the_copy(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    copies.run.settle()
    files = [output.metrics["copiedFiles"] for output in copies.outputs]
    assert files == [0.0, 5.0, 5.0, 5.0]  # generation 0 is the base model
    content = copies.copied()
    assert b'"003"' in content["model.safetensors"]
    assert json.loads(content["selfemo.json"])["scores"][0]["weightedF1"] == 0.5
    assert set(content) == {
        *("config.json", "model.safetensors", "tokenizer.json", "selfemo.json", "README.md"),
    }


def test_a_warm_start_is_copied_as_generation_0(tmp_path: Path) -> None:
    copies = Copies(tmp_path, warmStart={"steps": 100}, promotion={"minDelta": 0.5})
    copies.run.settle()
    assert [output.metrics["copiedFiles"] for output in copies.outputs] == [5.0] * 4
    assert json.loads(copies.copied()["selfemo.json"])["origin"]["stage"] == "WarmStart"


def test_what_is_there_is_not_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies(tmp_path)
    copies.run.settle()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "to").iterdir()}

    def fetch(*_: object) -> Path:
        raise AssertionError("the model is fetched")

    monkeypatch.setattr(copy_module, "fetch_model", fetch)
    copies.publish(copies.config(3), copies.run.store)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "to").iterdir()} == before
    (tmp_path / "to" / "tokenizer.json").unlink()
    with pytest.raises(AssertionError, match="is fetched"):
        copies.publish(copies.config(3), copies.run.store)


def test_a_place_named_later_gets_the_best_model_then(tmp_path: Path) -> None:
    copies = Copies(tmp_path, publish=None, promotion={"minDelta": 0.15})
    copies.run.settle()  # the best is generation 3
    assert [output.metrics for output in copies.outputs] == [{}] * 4
    copies.run.edit(publish=copies.target, stopping={"maxGenerations": 4})
    copies.run.settle()
    assert copies.outputs[-1].metrics == {"copiedFiles": 5.0}
    assert b'"003"' in copies.copied()["model.safetensors"]


def test_a_late_attempt_copies_nothing(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    copies.run.settle()
    before = copies.copied()
    copies.publish(copies.config(1), copies.run.store)
    assert copies.outputs[-1].metrics == {"copiedFiles": 0.0}
    assert copies.copied() == before


@pytest.mark.parametrize("what", ["files", "another evolution", "a model without a description"])
def test_nothing_of_others_is_replaced(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "to"
    if what == "another evolution":
        other = Copies(tmp_path / "other")
        other.run.settle()
        description = json.loads(other.copied()["selfemo.json"])
        description["origin"]["run"] = "default/other-00000000"
        (tmp_path / "other" / "to" / "selfemo.json").write_text(json.dumps(description))
        (tmp_path / "other" / "to").rename(folder)
        message = (
            "contains another model (default/other-00000000, generation 3): choose another "
            "destination, or remove that model"
        )
    else:
        folder.mkdir()
        name = "notes.txt" if what == "files" else "model.safetensors"
        (folder / name).write_text("of somebody")
        message = f"contains other files ({name}): choose an empty destination, or remove them"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    copies = Copies(tmp_path)
    with pytest.raises(BadInput) as caught:
        copies.run.settle()
    assert str(caught.value) == f"`publish`: {copies.target} {message}"
    assert copies.copied() == before


def test_a_run_that_was_made_again_replaces_its_model(tmp_path: Path) -> None:
    first = Copies(tmp_path / "a")
    first.run.settle()
    (tmp_path / "a" / "to").rename(tmp_path / "to")
    description = json.loads((tmp_path / "to" / "selfemo.json").read_text())
    description["origin"]["run"] = "default/demo-99999999"
    (tmp_path / "to" / "selfemo.json").write_text(json.dumps(description))
    copies = Copies(tmp_path)
    copies.run.settle()
    assert json.loads(copies.copied()["selfemo.json"])["origin"]["run"] == copies.run.evolution.run


def test_a_place_in_the_run_is_refused(tmp_path: Path) -> None:
    copies = Copies(tmp_path, publish=f"{tmp_path.as_uri()}/store/default")
    with pytest.raises(BadInput, match=r"`publish`: .* overlap: choose another destination"):
        copies.run.settle()


def test_a_best_model_whose_description_is_missing(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    copies.run.settle()
    model = tmp_path / "store" / copies.run.evolution.run / "generations" / "003" / "train"
    (model / "model" / "selfemo.json").unlink()
    config = copies.config(3)
    best = outcomes_of(copies.context(config)).best
    stored = BestManifest(
        run="x", generation=3, f1=0.5, model="generations/003/train/model", published=3
    )
    message = r"003/train/model/selfemo\.json is missing: restore it, or remove `publish`$"
    with pytest.raises(BadInput, match=message):
        copy_best(copies.context(config), best, stored)
    without = config.spec.model_copy(update={"publish": None})
    copy_best(copies.context(config.model_copy(update={"spec": without})), best, stored)
    (model / "removed.json").write_text('{"keep": "Best", "published": 4}')
    with pytest.raises(BadInput, match="was removed at the end of generation 4"):
        copy_best(copies.context(config), best, stored)


def test_the_program_copies_to_the_hub(tmp_path: Path) -> None:
    """As a process, because the hub's library reads its address when it is imported."""
    copies = Copies(tmp_path, publish=None)
    copies.run.settle()
    spec = spec_of(**{**copies.run.spec.to_json(), "publish": "hf://me/emotions"})
    config = copies.config(3).model_copy(update={"spec": spec})
    file = tmp_path / "config.json"
    file.write_text(config.model_dump_json(by_alias=True))
    with WritableHub(TOKEN) as hub:
        variables = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            ENV_WORK: str(tmp_path / "work"),
            ENV_TERMINATION_LOG: str(tmp_path / "message"),
        }
        env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | variables

        def start(**more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "selfemo_jobs.stages.publish", "--config", str(file)],
                env={**env, **more},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )

        done = start()
        assert done.returncode == ExitCode.BAD_INPUT
        message = json.loads((tmp_path / "message").read_text())
        assert message["error"] == (
            "`publish`: hf://me/emotions: the Hub requires a token to write: set HF_TOKEN, or "
            "run `hf auth login`"
        )
        for _ in range(2):
            done = start(HF_TOKEN=TOKEN)
            assert done.returncode == 0, done.stderr
            assert TOKEN not in done.stdout + done.stderr + (tmp_path / "message").read_text()
            message = json.loads((tmp_path / "message").read_text())
            assert message["metrics"]["copiedFiles"] == 5.0
        assert len(hub.commits) == 1
        content = hub.repositories["me/emotions"]
    assert b'"003"' in content["model.safetensors"]
    assert b"file:///" in content["selfemo.json"]
    assert str(tmp_path).encode() not in content["selfemo.json"] + content["README.md"]
