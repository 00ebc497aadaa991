"""Control characters: which are replaced, and that a value stays the same as JSON."""

from __future__ import annotations

import io
import json
import logging
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.results import FailureMessage, StageResult, decode_message
from selfemo_api.text.control_characters import (
    escaped_json,
    json_text,
    printable,
    printable_lines,
    visible,
)
from selfemo_api.text.json_logs import JsonLines, ReadableLines

HOSTILE = "\x1b[2J\x9b31m\x7f\u202e\udc9b\U000e0041\n"


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    for clean in (printable(text), visible(text), printable_lines(text).replace("\n", "")):
        controls = [c for c in clean if unicodedata.category(c) in ("Cc", "Zl", "Zp")]
        assert set(controls) <= {"\t"}
        assert not [c for c in clean if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO")]
        assert not [c for c in clean if unicodedata.bidirectional(c) in ("RLO", "PDF", "LRI")]


def test_other_scripts_and_emoji_stay() -> None:
    text = "你好\u3000世界 café\u00a0! \N{WOMAN}\u200d\N{PERSONAL COMPUTER} نمی\u200cخواهم\t-"
    assert printable(text) == text


@given(st.text(st.characters(codec=None)))
def test_json_has_the_same_value(text: str) -> None:
    written = json_text({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert written.encode()  # halves of surrogate pairs are escapes
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e]", written)
    assert escaped_json(written) == written


@pytest.mark.parametrize("formatter", [JsonLines(stage="Train"), ReadableLines()])
def test_log_lines(formatter: logging.Formatter) -> None:
    file = io.StringIO()
    handler = logging.StreamHandler(file)
    handler.setFormatter(formatter)
    record = logging.makeLogRecord({"msg": HOSTILE, "fields": {HOSTILE: HOSTILE}})
    handler.emit(record)
    text = file.getvalue().replace("\n", "")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]", text), ascii(text)
    if isinstance(formatter, JsonLines):
        assert json.loads(file.getvalue())["message"] == HOSTILE


def test_a_termination_message() -> None:
    hostile = HOSTILE.replace("\udc9b", "")  # pydantic refuses half of a pair
    failure = decode_message(json.dumps({"error": hostile, "kind": hostile}))
    assert isinstance(failure, FailureMessage)
    assert "\x1b" not in failure.error + failure.kind
    assert failure.error.endswith("\n")
    result = decode_message(
        json.dumps(
            {
                "stage": "Train",
                "generation": 1,
                "manifest": "s3://b/m",
                "manifestSha256": "0" * 64,
                "metrics": {f"loss{hostile}": 1},
            }
        )
    )
    assert isinstance(result, StageResult)
    assert "\x1b" not in "".join(result.metrics)
