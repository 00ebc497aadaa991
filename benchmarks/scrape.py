"""Times a scrape of the operator's metrics over HTTP: 500 evolutions, three datasets each.

`seconds` is the usual case, in which the reconcile passes have updated the lines. `coldSeconds` is
a scrape after every evolution has changed. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.unit.operator.controller.evolved import evolution_after

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.metrics.exposition import MAX_SERIES
from selfemo_operator.controller.metrics.http_server import HttpServer, metrics_handler
from selfemo_operator.controller.metrics.operator_metrics import OperatorMetrics

GOAL = 0.2
SOURCES = ("meld", "iemocap", "emorynlp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evolutions", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    cache = Cache()
    metrics = OperatorMetrics(cache, lambda: 1.0, lambda: 0)
    for number in range(arguments.evolutions):
        name, version = f"e{number:03d}", number + 1
        cache.store_evolution(evolution_after(name, sources=SOURCES, version=version))
    server = HttpServer(0, {"/metrics": metrics_handler(metrics.parts)})
    server.start()
    url = f"http://127.0.0.1:{server.port}/metrics"
    cold, _ = timed(url)
    scrapes = [timed(url) for _ in range(arguments.repeats)]
    server.stop()
    seconds = [seconds for seconds, _ in scrapes]
    body = scrapes[0][1]
    lines = [line for line in body.decode().splitlines() if line.startswith("selfemo_evolution_")]
    print(
        json.dumps(
            {
                "name": "scrape",
                "value": round(max(seconds), 4),
                "unit": "s, the slowest scrape",
                "goal": GOAL,
                "holds": max(seconds) < GOAL,
                "evolutions": arguments.evolutions,
                "seriesPerEvolution": len(lines) / arguments.evolutions,
                "seriesGoal": MAX_SERIES,
                "bytes": len(body),
                "seconds": round(statistics.median(seconds), 4),
                "coldSeconds": round(cold, 4),
            }
        )
    )


def timed(url: str) -> tuple[float, bytes]:
    began = time.perf_counter()
    with urlopen(url, timeout=60) as answer:
        body: bytes = answer.read()
    return time.perf_counter() - began, body


if __name__ == "__main__":
    main()
