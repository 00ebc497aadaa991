"""What a stage takes over from an earlier attempt."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from selfemo_api.contract import StageConfig
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.store import open_store

PATH = "tables/part-00000.json"


@pytest.fixture
def context(make_config: Callable[..., StageConfig], tmp_path: Path) -> StageContext:
    config = make_config(Stage.SCORE)
    return StageContext(config, open_store(config.spec.storage), 0, 1, tmp_path, settings="a")


def folder_of(context: StageContext) -> Path:
    return Path(context.config.output.removeprefix("file://"))


def refuse(data: bytes) -> None:
    raise AssertionError(f"{data!r} was decoded")


def test_a_whole_part_is_loaded_with_its_content(context: StageContext) -> None:
    assert context.load_part(PATH, refuse) is None
    part = context.put_part(PATH, b"[1, 2]", rows=2)
    assert context.load_part(PATH, json.loads) == (part, [1, 2])


def test_a_part_of_other_settings_is_not_loaded(context: StageContext) -> None:
    context.put_part(PATH, b"[1, 2]")
    assert replace(context, settings="b").load_part(PATH, refuse) is None


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_part_is_not_loaded_and_the_log_names_it(
    context: StageContext, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    part = context.put_part(PATH, b"[1, 2]")
    file = folder_of(context) / part.path
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"[1, 2" if damage == "cut" else b"[1, 3]")
    with caplog.at_level(logging.WARNING):
        assert context.load_part(PATH, refuse) is None
    assert caplog.messages == [
        f"{context.config.output}/{part.path} does not match its record: it is made again"
    ]


def test_a_part_without_a_record_is_not_loaded(context: StageContext) -> None:
    """A kill between the part and its record leaves a part that may not be whole."""
    context.put_part(PATH, b"[1, 2]")
    folder_of(context).joinpath("parts", f"{PATH}.json").unlink()
    assert context.load_part(PATH, refuse) is None


@pytest.mark.parametrize("data", [b"", b'{"part"', b'{"settings": "a"}x', b"[]", b"\xff", b"1"])
def test_a_damaged_record_counts_as_missing(context: StageContext, data: bytes) -> None:
    context.put_part(PATH, b"[1, 2]")
    folder_of(context).joinpath("parts", f"{PATH}.json").write_bytes(data)
    assert context.load_part(PATH, refuse) is None


def test_parts_of_other_content_have_other_places(context: StageContext) -> None:
    """An attempt that was believed to be dead changes no part of the one that ended the stage."""
    first = context.put_part(PATH, b"[1, 2]")
    late = context.put_part(PATH, b"[1, 3]")
    assert first.path != late.path and first.name == late.name == PATH
    assert (folder_of(context) / first.path).read_bytes() == b"[1, 2]"
    assert context.put_part(PATH, b"[1, 2]") == first


def test_a_part_made_from_other_content_of_a_source_is_not_loaded(context: StageContext) -> None:
    first = context.with_inputs({"source:talk": "a"})
    part = first.put_part(PATH, b"[1, 2]")
    assert first.load_part(PATH, json.loads) == (part, [1, 2])
    assert context.load_part(PATH, refuse) is None
    assert context.with_inputs({"source:talk": "b"}).load_part(PATH, refuse) is None
