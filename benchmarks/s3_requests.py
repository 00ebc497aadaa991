"""Counts the requests that each stage sends to S3: for itself, and for each of its parts.

``PYTHONPATH=. python benchmarks/s3_requests.py`` runs the same small evolution twice, with many and
with few parts, against a real S3 server. A proxy in front of it counts. Stages run one after
another, so a request belongs to the stage that was started last. It prints one JSON line for each
stage: the fixed number, and the number for each part. `selfemo check` estimates from these.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

from tests.support.s3_proxy import ForwardingHandler
from tests.support.s3_server import S3Server

from selfemo_api.contract import StageConfig
from selfemo_api.stages import Stage
from selfemo_jobs.base_models.tiny import make_tiny
from selfemo_jobs.stages.check.traffic import STAGE_REQUESTS

ROOT = Path(__file__).resolve().parent.parent
#: The prompts of a part, in the two runs.
BATCHES = (4, 32)


class Counter:
    """A proxy that stores when each request came."""

    def __init__(self, port: int) -> None:
        self.requests: list[float] = []
        counter = self

        class Handler(ForwardingHandler):
            def act(self) -> None:
                counter.requests.append(time.time())
                reply, data = self.forward(self.body())
                length = int(reply.headers.get("Content-Length", len(data)))
                self.answer(reply.status, dict(reply.headers), data, length)

        Handler.port = port
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def run(folder: Path, server: S3Server, batch: int) -> dict[Stage, tuple[float, int]]:
    """Run the evolution; return the requests of each stage of generation 1, and its parts."""
    counter, state = Counter(server.port), folder / f"state-{batch}"
    document = {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        "metadata": {"name": f"count-{batch}"},
        "spec": {
            "recipe": "tests-v1",
            "model": {"uri": (folder / "tiny").as_uri()},
            "dataset": {
                "labels": ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"],
                "sources": [
                    {"name": "train", "use": "SelfPlay", "uri": "data://demo/train.jsonl"},
                    {"name": "few", "use": "Labeled", "uri": "data://demo/dev.jsonl"},
                    {"name": "dev", "use": "Evaluation", "uri": "data://demo/dev.jsonl"},
                ],
            },
            "storage": {
                "uri": f"s3://{server.bucket}/runs",
                "endpoint": counter.endpoint,
                "pathStyle": True,
            },
            "selfPlay": {"dialogues": 32},
            "warmStart": {"steps": 2},
            "overrides": {"selfPlay": {"batchPrompts": batch}},
        },
    }
    file = folder / f"evolution-{batch}.json"
    file.write_text(json.dumps(document))
    command = [str(Path(sys.executable).with_name("selfemo")), "run", str(file)]
    command += ["--state", str(state), "--data", f"demo={ROOT / 'examples' / 'demo'}"]
    environment = {**os.environ, **server.environment}
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
    return counts(state, counter.requests)


def counts(state: Path, requests: list[float]) -> dict[Stage, tuple[float, int]]:
    """Return the requests of each stage of generation 1 (or 0), and its number of parts."""
    starts: list[tuple[float, StageConfig]] = []
    results: dict[tuple[int, Stage], int] = {}
    for file in state.rglob("config.json"):
        if file.parent.parent.name != "jobs":
            continue
        config = StageConfig.model_validate_json(file.read_text())
        starts.append((file.stat().st_mtime, config))
        results[config.generation, config.stage] = 0
    starts.sort(key=lambda start: start[0])
    counted: dict[tuple[int, Stage], float] = defaultdict(float)
    for when in requests:
        config = [config for began, config in starts if began <= when][-1]
        counted[config.generation, config.stage] += 1
    last: dict[Stage, tuple[float, int]] = {}
    for (_, stage), number in sorted(counted.items(), key=lambda item: item[0][0]):
        last[stage] = number, 0
    return last


def main() -> None:
    """Run the benchmark."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tiny(folder / "tiny")
        (folder / "s3").mkdir()
        server = S3Server(folder / "s3")
        server.start()
        try:
            with ThreadPoolExecutor() as pool:
                many, few = pool.map(lambda batch: run(folder, server, batch), BATCHES)
        finally:
            server.stop()
    # 32 dialogues with two targets each, and both roles
    parts = [64 // max(1, batch // 2) for batch in BATCHES]
    for stage in many:
        per_part = (many[stage][0] - few[stage][0]) / (parts[0] - parts[1])
        line = {
            "name": f"requests of S3: {stage.value}",
            "value": round(few[stage][0] - per_part * parts[1], 1),
            "unit": "requests of the stage",
            "perPart": round(per_part, 2),
            "requests": [many[stage][0], few[stage][0]],
            "parts": parts,
            "estimated": STAGE_REQUESTS[stage],
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
