"""`make gpu-check` on a machine without a GPU: it is then right where one is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tools.gpu_check import __main__ as program
from tools.gpu_check.engines_part import BOUNDS, compare, prompts_of
from tools.gpu_check.lines import Settings
from tools.gpu_check.models import small_model

from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    folder = tmp_path_factory.mktemp("check")
    settings = Settings(folder, "cpu", "tiny", None, folder / "lines")
    arguments = TransformersArgs(device="cpu", dtype="float32")
    return TransformersEngine(small_model(settings), arguments, max_model_len=320)


class Shifted(TransformersEngine):
    """Reads each prompt without its first token, as with a wrong position or mask."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.__dict__.update(engine.__dict__)

    def generate(self, prompts: Any, sampling: Any) -> list[list[Completion]]:
        return super().generate([prompt[1:] for prompt in prompts], sampling)


def test_an_engine_agrees_with_itself_and_not_with_a_wrong_one(engine: TransformersEngine) -> None:
    prompts = prompts_of(6, 4, 60)
    equal = compare(engine, engine, prompts)
    assert (equal["equal"], equal["gap"], equal["most"]) == (6, 0.0, 0.0)
    wrong = compare(engine, Shifted(engine), prompts)
    bounds = BOUNDS["bfloat16"]
    assert wrong["mean"] > bounds.mean or wrong["gap"] > bounds.gap


def test_the_models_answers_depend_on_the_whole_prompt(engine: TransformersEngine) -> None:
    greedy = Sampling(temperature=0.0, max_tokens=4, greedy_logprobs=True)
    prompts = prompts_of(8, 30, 40)
    changed = [[3 + prompt[0] % 290, *prompt[1:]] for prompt in prompts]
    first, second = engine.generate(prompts, greedy), engine.generate(changed, greedy)
    pairs = zip(first, second, strict=True)
    assert sum(a.logprobs != b.logprobs for (a,), (b,) in pairs) == len(prompts)
    assert replace(greedy, n=1) == greedy


def test_the_summary_and_the_exit_code_say_whether_all_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [{"name": "one", "holds": True}, {"name": "two", "holds": None, "skipped": "no vLLM"}]
    assert program._summary(lines, "cpu") == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == ["two"]
    assert program._summary([*lines, {"name": "three", "holds": False}], "cpu") == 1
    assert json.loads(capsys.readouterr().out)["failed"] == ["three"]


def test_a_device_that_is_not_there_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program, "_device", lambda: "cpu")
    assert program.main(["--device", "cuda"]) == program.NO_DEVICE


@pytest.mark.slow
def test_all_parts_hold_on_a_processor(tmp_path: Path) -> None:
    parts = ["engines", "training", "memory", "speed-training"]
    command = [sys.executable, "-m", "tools.gpu_check", "--device", "cpu", "--only", *parts]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    checks = {line["name"]: line for line in lines if "holds" in line}
    # ratios of speed are not asserted: the machine may be busy
    wrong = [n for n, line in checks.items() if line["holds"] is False and "speed" not in n]
    assert not [name for name in wrong if name != "summary" and "device" not in name], done.stdout
    (speed,) = (line for name, line in checks.items() if name.startswith("speed: training"))
    assert speed["weightsApart"] < 2e-6  # both trainers do the same arithmetic
    assert sum(name.startswith("training: ") for name in checks) == 4
    assert "error" not in done.stdout
