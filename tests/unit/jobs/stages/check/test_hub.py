"""A model on a hub: only its small files and the headers of its weights are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.model_hub import COMMIT, ModelHub
from tests.unit.jobs.stages.check.world import World

from selfemo_api.contract import DRY_RUN_MODULE, ENV_PARENT, ExitCode


@pytest.fixture
def world(world: World) -> World:
    """An input whose model is on a hub."""
    world.spec["model"]["uri"] = "hf://owner/tiny"
    return world


def dry_run(world: World, endpoint: str, **variables: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the report of the check: the library reads its settings once."""
    file = world.folder / "config.json"
    file.write_text(world.config().model_dump_json(by_alias=True))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"},
        ENV_PARENT: str(os.getpid()),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(world.folder / "home"),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", DRY_RUN_MODULE, "--config", str(file)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def lines(report: dict[str, Any], kind: str) -> list[str]:
    return [f"{finding['field']}: {finding['message']}" for finding in report[kind]]


def test_a_model_on_the_hub_is_not_downloaded(world: World) -> None:
    path = world.model / "model.safetensors"
    with ModelHub(world.model) as hub:
        code, report = dry_run(world, hub.endpoint)
        assert (code, lines(report, "problems")) == (ExitCode.OK, [])
        assert report["metrics"]["parameters"] == 853_248
        assert hub.sent[path.name] < path.stat().st_size / 5
        world.spec["model"]["revision"] = COMMIT
        assert dry_run(world, hub.endpoint)[0] == ExitCode.OK
        world.edit_config(quantization_config={"quant_method": "awq", "bits": 4})
        with path.open("ab") as file:
            file.write(b"more")
        code, report = dry_run(world, hub.endpoint)
    assert code == ExitCode.BAD_INPUT
    assert lines(report, "problems") == [
        f"model.uri: hf://owner/tiny at revision {COMMIT}: model.safetensors is an unfinished "
        f"download: {path.stat().st_size} of {path.stat().st_size - 4} bytes",
        "model.uri: the model is quantized (awq, 4 bits): training writes full-precision "
        "weights, so use the unquantized model",
    ]


def test_what_the_hub_does_not_have(world: World) -> None:
    with ModelHub(world.model) as hub:
        world.spec["model"]["revision"] = "v9"
        assert lines(dry_run(world, hub.endpoint)[1], "problems") == [
            "model.uri: hf://owner/tiny at revision v9: the revision does not exist on the Hub"
        ]
        world.spec["model"] = {"uri": "hf://owner/other"}
        assert lines(dry_run(world, hub.endpoint)[1], "problems") == [
            "model.uri: hf://owner/other: the model does not exist on the Hub, or HF_TOKEN may "
            "not read it"
        ]


def test_a_hub_behind_a_certificate_of_its_own(world: World) -> None:
    with ModelHub(world.model, world.folder) as hub:
        code, report = dry_run(world, hub.endpoint)
        assert code == ExitCode.BAD_INPUT
        assert lines(report, "problems") == [
            "model.uri: hf://owner/tiny: the Hub's certificate is not trusted: set "
            "SSL_CERT_FILE to a CA bundle with the certificate of its authority"
        ]
        trusted = {"SSL_CERT_FILE": str(hub.certificate)}
        assert dry_run(world, hub.endpoint, **trusted)[0] == ExitCode.OK
        missing = {"SSL_CERT_FILE": "/nowhere/ca.pem"}
        assert lines(dry_run(world, hub.endpoint, **missing)[1], "problems") == [
            "model.uri: hf://owner/tiny: SSL_CERT_FILE is /nowhere/ca.pem, which does not "
            "exist: fix or unset the variable"
        ]


def test_a_hub_that_does_not_respond_is_not_a_problem(world: World) -> None:
    with ModelHub(world.model) as hub:
        hub.status = 503
        code, report = dry_run(world, hub.endpoint)
    assert (code, report["problems"]) == (ExitCode.UNAVAILABLE, [])
    assert lines(report, "unavailable") == [
        "model.uri: hf://owner/tiny: the Hub responded with 503; run the same command again"
    ]


def test_a_model_in_the_cache_needs_no_hub(world: World) -> None:
    snapshot = Path("home/hub/models--owner--tiny/snapshots") / COMMIT
    folder = world.folder / snapshot
    folder.parent.mkdir(parents=True)
    refs = folder.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    world.model.rename(folder)
    code, report = dry_run(world, "http://127.0.0.1:9")
    assert (code, report["problems"], report["unavailable"]) == (ExitCode.OK, [], [])
    (folder / "model.safetensors").unlink()
    code, report = dry_run(world, "http://127.0.0.1:9")
    assert code == ExitCode.UNAVAILABLE
    assert lines(report, "unavailable") == [
        "model.uri: hf://owner/tiny: the Hub could not be reached; run the same command again "
        "when it is reachable, or use a model in a folder or on S3"
    ]
