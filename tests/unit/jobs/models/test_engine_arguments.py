"""Tests of the arguments that an engine gets from a model's description."""

from __future__ import annotations

import pytest

from selfemo_api.model_description import Decoding
from selfemo_api.spec import Engine
from selfemo_jobs.models.engine_arguments import described_arguments, engine_arguments


@pytest.mark.parametrize(
    "name",
    [
        *("trust_remote", "trust-remote-code", "hos", "host", "worker_cls", "logits_processors"),
        *("load_format", "tokenizer", "otlp_traces_endpoint", "middleware", "trust_remote_code"),
    ],
)
def test_a_description_sets_only_safe_arguments(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    decoding = Decoding(engine=Engine.VLLM, engine_args={"dtype": "float32", name: False})
    assert described_arguments(decoding) == {"dtype": "float32"}
    assert engine_arguments(decoding, Engine.VLLM, None) == {"dtype": "float32"}
    assert (f"sets '{name}' of vLLM: not used" in caplog.text) == (name != "trust_remote_code")


def test_arguments_of_the_caller_are_all_passed_on() -> None:
    decoding = Decoding(engine=Engine.VLLM, engine_args={"dtype": "float32"})
    assert engine_arguments(decoding, Engine.VLLM, {"load_format": "dummy"}) == {
        "load_format": "dummy"
    }


def test_transformers_checks_its_arguments_itself() -> None:
    decoding = Decoding(engine=Engine.TRANSFORMERS, engine_args={"dtype": "float32", "x": 1})
    assert described_arguments(decoding) == {"dtype": "float32", "x": 1}
