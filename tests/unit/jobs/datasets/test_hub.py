"""Datasets of the hub: splits, configurations, class labels of the card, what is not read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.dataset_hub import DatasetHub
from tests.support.dialogue_files import write_parquet

CARD = """---
configs:
- config_name: talk
  data_files:
  - split: train
    path: talk/train-*
  - split: test
    path: talk/test-*
- config_name: raw
  data_files:
  - split: train
    path: raw/*.jsonl
dataset_info:
- config_name: talk
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': calm
          '1': glad
---
A dataset.
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatasetHub]:
    folder = tmp_path_factory.mktemp("hub")

    def parquet(*texts: str) -> bytes:
        rows = [{"text": text, "label": i % 2} for i, text in enumerate(texts)]
        return write_parquet(folder / "x.parquet", rows).read_bytes()

    line = json.dumps({"id": "r", "turns": [{"speaker": "A", "text": "Raw"}]}).encode()
    datasets = {
        "org/emo": {
            "README.md": CARD.encode(),
            "talk/train-00000-of-00002.parquet": parquet("one", "two"),
            "talk/train-00001-of-00002.parquet": parquet("three"),
            "talk/test-00000-of-00001.parquet": parquet("four"),
            "raw/a.jsonl": line,
        },
        "org/plain": {"train.csv": b"text,label\nHi,calm\n", "dev.csv": b"text,label\nHo,glad\n"},
        "org/single": {"talks.jsonl": line, "notes.txt": b"x"},
        "org/script": {"script.py": b"raise SystemExit(9)", "README.md": b"Hi"},
        "org/pickle": {"train.pkl": b"\x80\x04K\x01."},
    }
    with DatasetHub(datasets) as server:
        yield server


def check(hub: DatasetHub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `selfemo data check` with the hub."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "selfemo_jobs.data_commands", "check", "-o", "json"]
    return subprocess.run(
        [*command, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def figures(hub: DatasetHub, home: Path, *arguments: str) -> list[dict[str, Any]]:
    done = check(hub, home, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    sources: list[dict[str, Any]] = json.loads(done.stdout)["sources"]
    return sources


def test_splits_and_class_labels(hub: DatasetHub, tmp_path: Path) -> None:
    hub.requests.clear()
    commit = hub.commit("org/emo")
    train, test, raw, files = figures(
        hub,
        tmp_path,
        "hf://org/emo?config=talk&split=train",
        f"hf://datasets/org/emo@{commit}?config=talk&split=test",
        f"hf://org/emo?config=raw&revision={commit}",
        "hf://org/emo/talk/t*-00000-*",
    )
    assert (train["dialogues"], train["labels"]) == (3, {"calm": 2, "glad": 1})
    assert (test["dialogues"], test["labels"]) == (1, {"calm": 1})
    assert (raw["dialogues"], raw["labels"]) == (1, {})
    assert (files["dialogues"], files["labels"]) == (3, {"0": 2, "1": 1})
    fetched = [r for r in hub.requests if "/resolve/" in r and r.endswith("raw/a.jsonl")]
    assert all(commit in request for request in fetched)


def test_only_the_files_of_the_split_are_fetched(hub: DatasetHub, tmp_path: Path) -> None:
    hub.requests.clear()
    figures(hub, tmp_path, "hf://org/emo?config=talk&split=test")
    names = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert names == {"README.md", "test-00000-of-00001.parquet"}


def test_splits_by_the_names_of_files(hub: DatasetHub, tmp_path: Path) -> None:
    (dev,) = figures(hub, tmp_path, "hf://org/plain?split=validation")
    assert dev["labels"] == {"glad": 1}
    (single,) = figures(hub, tmp_path, "hf://org/single")
    assert single["dialogues"] == 1


def test_what_is_refused(hub: DatasetHub, tmp_path: Path) -> None:
    cases = {
        "hf://org/plain": "has the splits train, validation: specify one, for example "
        "hf://org/plain?split=tra",
        "hf://org/emo?config=talk&split=dev": "has no split dev; it has train, test: specify "
        "one, for example hf://org/emo?config=talk&split=train",
        "hf://org/emo?config=no": "the files of the dataset are ambiguous: BuilderConfig 'no' not",
        "hf://org/none": "hf://org/none: the dataset does not exist on the Hub, or HF_TOKEN "
        "may not read it",
        "hf://org/single@v9": "at revision v9: the revision does not exist on the Hub",
        "hf://org/script": "has no supported data file (JSON, CSV, Parquet or Arrow), and "
        "loading scripts are not run",
        "hf://org/pickle": "has no supported data file",
        "hf://org": "must be hf://owner/name, e.g. hf://owner/name?split=train",
        "hf://org/single/*.csv": "*.csv: no file matches the pattern in the dataset",
    }
    done = check(hub, tmp_path, *cases)
    assert done.returncode == 2, done.stderr
    findings = {f["field"]: f["message"] for f in json.loads(done.stdout)["findings"]}
    assert findings.keys() == cases.keys()
    for uri, message in cases.items():
        assert message in findings[uri]
        assert str(tmp_path) not in findings[uri]


def test_hub_that_is_away(hub: DatasetHub, tmp_path: Path) -> None:
    with DatasetHub({}) as other:
        pass
    done = check(other, tmp_path, "hf://org/emo")
    assert done.returncode == 75, done.stdout
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["severity"] == "Unavailable"
    assert "hf://org/emo: the Hub could not be reached" in finding["message"]
