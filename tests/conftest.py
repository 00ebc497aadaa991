"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from selfemo_api import dataset_labels
from selfemo_api.contract import StageConfig
from selfemo_api.seeds import stage_seed
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage, stage_prefix
from tests.support.s3_server import S3Server

# No test is timed: a machine may be busy.
hypothesis.settings.register_profile(
    "selfemo",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("selfemo")

# A program that was started in the background ignores SIGINT, and so do its own processes.
# Tests send it, so it must have its usual effect.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with `meld/` and `emorynlp/` as published; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SELFEMO_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "meld" / "test_sent_emo.csv").is_file():
        pytest.skip(f"MELD is not at {folder}; set SELFEMO_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the one-million-parameter test model."""
    from selfemo_jobs.base_models.tiny import make_tiny

    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with one bucket. A test that stops or pauses it starts it again."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with its keys in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if both else value
    return out


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., EvolutionSpec]:
    """Build a small valid spec; keyword arguments are camelCase parts to change (merged deeply)."""

    def build(**changes: Any) -> EvolutionSpec:
        source = {"uri": f"file://{tmp_path}/demo.jsonl", "format": "JSONL"}
        base: dict[str, Any] = {
            "seed": 7,
            "model": {"uri": f"file://{tmp_path}/model", "prompts": "compact-v1"},
            "dataset": {
                "labels": list(dataset_labels.MELD),
                "sources": [
                    {"name": "demo", "use": "SelfPlay", **source},
                    {"name": "dev", "use": "Evaluation", **source},
                ],
            },
            "storage": {"uri": f"file://{tmp_path}/store"},
            "selfPlay": {
                "engine": "Transformers",
                "groupSize": 4,
                "maxTokens": {"recognizer": 6, "responder": 12},
            },
            "training": {
                "batchSize": 8,
                "microBatchSize": 4,
                "precision": "Float32",
                "gradientCheckpointing": False,
                "deepspeed": {"zeroStage": 0},
            },
            "resources": {"gpusPerNode": 0},
        }
        return EvolutionSpec.model_validate(_merge(base, changes))

    return build


@pytest.fixture
def make_config(make_spec: Callable[..., EvolutionSpec]) -> Callable[..., StageConfig]:
    """Build a stage's configuration; `parents` are manifest URIs by stage slug."""

    def build(
        stage: Stage,
        *,
        generation: int = 1,
        spec: EvolutionSpec | None = None,
        policy: str | None = None,
        judge: str | None = None,
        **fields: Any,
    ) -> StageConfig:
        spec = spec or make_spec()
        run = "default/demo-00000000"
        return StageConfig(
            stage=stage,
            run=run,
            generation=generation,
            seed=stage_seed(spec.seed, generation, stage),
            spec=spec,
            policy_uri=policy or spec.model.uri,
            judge_uri=judge or spec.model.uri,
            output=f"{spec.storage.uri}/{run}/{stage_prefix(generation, stage)}",
            **fields,
        )

    return build
