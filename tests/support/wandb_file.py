"""Reads the file of an offline run of Weights & Biases, with W&B's own types of records.

The file is a log in LevelDB's format: blocks of 32 KiB with records, of which long ones are split.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK = 32 * 1024
_HEADER = 7
_WHOLE, _FIRST, _LAST = 1, 2, 4


def records(path: Path) -> Iterator[Record]:
    """Yield the records of a `.wandb` file."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    offset, parts = _HEADER, b""
    while offset < len(data):
        if _BLOCK - offset % _BLOCK < _HEADER:  # the rest of a block is empty
            offset += _BLOCK - offset % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, offset + 4)
        offset += _HEADER
        parts = (b"" if kind in (_WHOLE, _FIRST) else parts) + data[offset : offset + length]
        offset += length
        if kind in (_WHOLE, _LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record


def history(path: Path) -> list[dict[str, Any]]:
    """Return the logged rows: the values by name, and `_step`."""
    return [
        {_name(item): json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def config(path: Path) -> dict[str, Any]:
    """Return the run's configuration."""
    values: dict[str, Any] = {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            updates = record.run.config.update if kind == "run" else record.config.update
            values |= {_name(item): json.loads(item.value_json) for item in updates}
    return values


def step_metrics(path: Path) -> dict[str, str]:
    """Return the axis of each metric, by the metric's name or glob."""
    return {
        record.metric.name or record.metric.glob_name: record.metric.step_metric
        for record in records(path)
        if record.WhichOneof("record_type") == "metric" and record.metric.step_metric
    }


def files(path: Path) -> list[str]:
    """Return the paths of the files that an upload would take."""
    return [
        file.path
        for record in records(path)
        if record.WhichOneof("record_type") == "files"
        for file in record.files.files
    ]


def _name(item: Any) -> str:
    return item.key or ".".join(item.nested_key)
