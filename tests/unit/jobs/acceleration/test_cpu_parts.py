"""A run on a GPU never imports the parts of `acceleration` that are for a CPU alone.

No GPU is needed: PyTorch's device `meta` computes shapes alone, and is not a CPU.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CPU_PARTS = ("bf16_emulation", "cpu_prefill")

ENGINE = """
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine

arguments = TransformersArgs(device={device!r}, dtype="bfloat16")
engine = TransformersEngine(Path({model!r}), arguments, max_model_len=64)
try:
    engine.prefill([[5, 6, 7], [8]])
except RuntimeError as error:
    assert "meta tensors" in str(error)  # the model was reached: it asked for a value of the mask
"""
TRAINING = """
from selfemo_jobs.acceleration.rounded_products import checkpointing_options
from selfemo_jobs.stages.train import trainer, training_arguments, training_loop, worker

with training_loop.precision_context(bfloat16_products={gpus} == 0):
    pass
checkpointing_options(rounded={gpus} == 0)
"""
WARM_START = """
from selfemo_jobs.acceleration.rounded_products import rounding_context
from selfemo_jobs.stages.warmstart import early_stopping, stage, supervised_trainer, weights

with rounding_context(rounded={gpus} == 0)():
    pass
"""


def cpu_parts_of(code: str) -> set[str]:
    """Run code in a new process; return the CPU parts that it has imported."""
    program = (
        f"import sys\nfrom pathlib import Path\n{code}\n"
        "names = {n.rpartition('.')[2] for n in sys.modules if '.acceleration.' in n}\n"
        f"print(*sorted(names & {set(CPU_PARTS)!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(("device", "parts"), [("meta", set()), ("cpu", set(CPU_PARTS))])
def test_the_engine_imports_them_on_a_cpu_alone(
    tiny_model: Path, device: str, parts: set[str]
) -> None:
    assert cpu_parts_of(ENGINE.format(device=device, model=str(tiny_model))) == parts


@pytest.mark.parametrize(("gpus", "parts"), [(1, set()), (0, {"bf16_emulation"})])
@pytest.mark.parametrize("code", [TRAINING, WARM_START], ids=["train", "warm start"])
def test_training_imports_them_on_a_cpu_alone(code: str, gpus: int, parts: set[str]) -> None:
    assert cpu_parts_of(code.format(gpus=gpus)) == parts
