"""Two attempts of a stage overlap, and the one that lost goes on after the other's manifest.

An attempt that was believed to be dead (a node without network, a Job that was deleted by hand) may
still write. Its rows differ from those of the attempt that finished the stage, as sampling on a GPU
does. The parts that the manifest lists must stay whole.

`python -m tests.campaign.late_writer SCENARIO.json` is one attempt, started by :func:`violations`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from selfemo_api.contract import ENV_TERMINATION_LOG, ENV_WORK, StageConfig
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from tests.campaign.defects import install

ROOT = Path(__file__).resolve().parents[2]
_PARTS = 3
_RUN = "default/demo-00000000"
_SECONDS = 120.0


def _config(folder: Path) -> StageConfig:
    """Return the configuration of the stage, with its storage in a folder."""
    source = {"uri": "file:///nowhere/demo.jsonl", "format": "JSONL"}
    storage = {"uri": f"file://{folder / 'storage'}"}
    sources = [{"name": use.lower(), "use": use, **source} for use in ("SelfPlay", "Evaluation")]
    spec = {
        "model": {"uri": "file:///nowhere/model", "prompts": "compact-v1"},
        "dataset": {"labels": ["joy", "anger"], "sources": sources},
        "storage": storage,
    }
    return StageConfig(
        stage=Stage.SELF_PLAY,
        run=_RUN,
        generation=1,
        seed=1,
        spec=EvolutionSpec.model_validate(spec),
        policy_uri="file:///nowhere/model",
        judge_uri="file:///nowhere/model",
        output=f"{storage['uri']}/{_RUN}/generations/001/selfplay",
    )


def violations(seed: int, defect: str | None = None) -> list[str]:
    """Let two attempts overlap; return what is wrong with the stored result.

    Parameters
    ----------
    seed
        The place at which the first attempt is held up follows from it.
    defect
        The name of a defect to put back into the attempts.
    """
    place = random.Random(seed).randrange(_PARTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        goes_on = folder / "goes-on"
        late = _start(folder, {"name": "late", "holdAt": place, "defect": defect})
        _wait(folder / "held")
        winner = _start(folder, {"name": "winner", "defect": defect})
        codes = [winner.wait(_SECONDS)]
        goes_on.touch()
        codes.append(late.wait(_SECONDS))
        if codes[0] != 0:
            return [f"the attempts ended with {codes}"]
        return _damaged(_config(folder).output.removeprefix("file://"))


def _start(folder: Path, scenario: dict[str, Any]) -> subprocess.Popen[bytes]:
    own = folder / scenario["name"]
    own.mkdir()
    file = own / "scenario.json"
    file.write_text(json.dumps({**scenario, "folder": str(folder)}))
    with (own / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.late_writer", str(file)],
            cwd=ROOT,
            env={
                **os.environ,
                ENV_WORK: str(own / "work"),
                ENV_TERMINATION_LOG: str(own / "termination"),
            },
            stdout=log,
            stderr=log,
        )


def _wait(file: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise AssertionError(f"{file.name} took more than {_SECONDS:g} s")
        time.sleep(0.02)


def _damaged(output: str) -> list[str]:
    from selfemo_jobs.runtime.manifest import MANIFEST, Manifest
    from selfemo_jobs.store.hashing import sha256

    manifest = Manifest.model_validate_json((Path(output) / MANIFEST).read_bytes())
    wrong = []
    for part in manifest.parts:
        if sha256((Path(output) / part.path).read_bytes()) != part.sha256:
            wrong.append(f"{part.path} is not what the manifest lists")
    return wrong


def attempt(file: Path) -> int:
    """Run one attempt; return its exit code."""
    scenario = json.loads(file.read_text())
    if scenario["defect"]:
        install(scenario["defect"])
    from selfemo_jobs.runtime.context import StageContext, StageOutput
    from selfemo_jobs.runtime.program import StageProgram

    folder = Path(scenario["folder"])

    def work(context: StageContext) -> StageOutput:
        parts = []
        for number in range(_PARTS):
            if scenario.get("holdAt") == number:
                (folder / "held").touch()
                _wait(folder / "goes-on")
            text = f"{number} as {scenario['name']} has sampled it".encode()
            parts.append(context.put_part(f"part-{number:05d}.parquet", text))
        return StageOutput(parts, rows=_PARTS)

    config = file.with_name("config.json")
    config.write_text(_config(folder).model_dump_json(by_alias=True))
    program = StageProgram(stage=Stage.SELF_PLAY, work=work, relevant=("selfPlay.temperature",))
    return int(program.main(["--config", str(config)]))


if __name__ == "__main__":
    sys.exit(attempt(Path(sys.argv[1])))
