"""The time to the first token of each stage, by part, and what a generation spends on starts.

``PYTHONPATH=. python benchmarks/stage_start.py [--model FOLDER] [--engines Transformers VLLM]
[--compile]`` starts each stage in processes of their own, which mark their processor time

- ``process``: until the interpreter runs,
- ``program``: until the stage's program is imported,
- ``libraries``: until the libraries are imported that it uses for its work,
- ``model``: until the weights are loaded, with vLLM the whole engine,
- ``engine``: until the training engine exists,
- ``first``: until the first token, or the first step.

Several starts take turns; the least time of each part counts. It prints one JSON line for each
stage and engine, and one for a generation. ``--before`` adds the same starts as they were: with all
imports of Transformers, and with a path of its own for each model. ``--compile`` lets vLLM compile
on a CPU, as it does on a GPU: each start then loads another model of the same kind, as the stages
of different generations do.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from selfemo_api.stages import Stage
from selfemo_jobs.runtime.light_imports import skip_unused_imports

PARTS = ("process", "program", "libraries", "model", "engine", "first")
#: The stages of a generation in their order; the warm start is before the first one.
STAGES = (
    Stage.CHECK,
    Stage.WARM_START,
    Stage.SELF_PLAY,
    Stage.SCORE,
    Stage.FLYWHEEL,
    Stage.TRAIN,
    Stage.EVALUATE,
    Stage.PUBLISH,
)
WITH_ENGINE = (Stage.SELF_PLAY, Stage.SCORE, Stage.EVALUATE)
#: The stages that imported scikit-learn with their program.
WITH_FIGURES = (Stage.WARM_START, Stage.EVALUATE, Stage.PUBLISH)
_LENGTHS = {Stage.SELF_PLAY: 304, Stage.SCORE: 272, Stage.EVALUATE: 270}


class Marks:
    """The processor time of each part, on which other work of the machine has little influence."""

    def __init__(self) -> None:
        self._last = 0.0
        self.seconds: dict[str, float] = {}

    def mark(self, part: str) -> None:
        """End a part."""
        now = sum(os.times()[:4])  # with ended children, such as the C++ compiler
        self.seconds[part] = now - self._last
        self._last = now


def child(arguments: argparse.Namespace, marks: Marks) -> None:
    """Start a stage in this process, up to its first token or step."""
    stage, folder, model = Stage(arguments.child), Path(arguments.folder), arguments.model
    if stage is Stage.TRAIN:
        return _start_training(marks, folder, before=arguments.before)
    importlib.import_module(f"{stage.module}.stage")
    if arguments.before and stage in WITH_FIGURES:
        import sklearn.metrics

        del sklearn
    if stage in (*WITH_ENGINE, Stage.WARM_START) and not arguments.before:
        skip_unused_imports()
    marks.mark("program")
    if stage in WITH_ENGINE:
        _start_engine(marks, arguments, stage)
    elif stage is Stage.WARM_START:
        _start_supervised(marks, model)
    elif stage is Stage.FLYWHEEL:
        marks.mark("libraries")
    return None


def _start_engine(marks: Marks, arguments: argparse.Namespace, stage: Stage) -> None:
    from selfemo_api.spec import Engine

    engine = Engine(arguments.engine)
    if engine is Engine.VLLM:
        import vllm

        del vllm
    else:
        from transformers import AutoModelForCausalLM

        del AutoModelForCausalLM
    from selfemo_jobs.engines import open_engine
    from selfemo_jobs.engines.interface import Sampling

    marks.mark("libraries")
    eager = {"enforce_eager": False} if arguments.compile and engine is Engine.VLLM else {}
    loaded = open_engine(
        engine,
        arguments.model,
        engine_args=eager,
        max_model_len=_LENGTHS[stage],
        seed=0,
    )
    marks.mark("model")
    loaded.generate([list(range(3, 60))], Sampling(temperature=0.0, max_tokens=1))
    marks.mark("first")


def _start_supervised(marks: Marks, model: Path) -> None:
    import torch

    from selfemo_jobs.models.fetch import load_model, load_tokenizer
    from selfemo_jobs.stages.warmstart import early_stopping, selection, supervised_trainer
    from selfemo_jobs.stages.warmstart.examples import Example
    from selfemo_jobs.stages.warmstart.options import TrainingOptions

    del early_stopping, selection
    load_tokenizer(model)
    marks.mark("libraries")
    loaded = load_model(model, torch.float32)
    marks.mark("model")
    examples = [Example(tuple(range(3, 60)), (5, 6))] * 8
    options = TrainingOptions(steps=1, batch_size=4, learning_rate=1e-4, responder_share=0.0)
    trainer = supervised_trainer.SupervisedTrainer(
        loaded, examples, [], options, pad=0, seed=0, rate=lambda _step: 1.0
    )
    trainer.make_step()
    marks.mark("first")


def _start_training(marks: Marks, folder: Path, *, before: bool) -> None:
    """Start the process that trains. That of the stage itself imports no torch."""
    from selfemo_jobs.stages.train import worker

    marks.mark("program")
    from selfemo_jobs.runtime.sigterm import SigtermFlag
    from selfemo_jobs.stages.train.worker_protocol import TrainJob

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "HF_HUB_OFFLINE": "1"}
    os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    job = TrainJob.model_validate_json((folder / "train" / "job.json").read_bytes())
    worker.skip_generation_imports()
    if before:
        sys.modules.pop("mlflow", None)
    worker.join_process_group(job)
    from selfemo_jobs.stages.train import training_loop
    from selfemo_jobs.stages.train.training_callback import TrainingCallback

    marks.mark("libraries")
    load = training_loop._load_policy

    class Marking(TrainingCallback):
        """Marks the engine and the first step."""

        def on_train_begin(self, *values: Any, **named: Any) -> None:
            marks.mark("engine")
            super().on_train_begin(*values, **named)

        def on_step_end(self, *values: Any, **named: Any) -> None:
            if "first" not in marks.seconds:
                marks.mark("first")
            super().on_step_end(*values, **named)

    def loaded(*values: Any) -> Any:
        policy = load(*values)
        marks.mark("model")
        return policy

    training_loop.TrainingCallback = Marking  # type: ignore[misc]
    training_loop._load_policy = loaded
    training_loop.run_training(job, SigtermFlag())


def write_training(folder: Path, model: Path) -> None:
    """Write a training of one step."""
    from tools.gpu_check.training_part import write_job

    write_job(folder / "train", model)


def start(arguments: argparse.Namespace, stage: Stage, engine: str, **changes: Any) -> Any:
    """Start a stage once; return the seconds of each part."""
    command = [sys.executable, __file__, "--child", stage.value, "--engine", engine]
    command += ["--folder", str(changes.get("folder")), "--model", str(changes.get("model"))]
    command += ["--before"] if changes.get("before") else []
    command += ["--compile"] if arguments.compile else []
    environment = {**os.environ, **changes.get("environment", {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr[-3000:])
        raise SystemExit(f"{stage.value} with {engine} did not start")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(arguments: argparse.Namespace, folder: Path) -> dict[tuple[str, str, bool], Any]:
    """Return the shortest time of each part, by stage, engine, and whether it is as before."""
    models = [arguments.model]
    if arguments.model is None or arguments.compile:
        models = [folder / f"model-{number}" for number in range(arguments.repeats + 1)]
        from selfemo_jobs.base_models.tiny import make_tiny

        for number, model in enumerate(models):
            make_tiny(model, seed=number)
    write_training(folder, models[0])
    best: dict[tuple[str, str, bool], dict[str, float]] = {}
    ways = [True, False] if arguments.before else [False]
    for repeat in range(arguments.repeats + 1):
        for before in ways[:: 1 if repeat % 2 else -1]:
            for stage in (s for s in STAGES if s.value in arguments.stages):
                engines = arguments.engines if stage in WITH_ENGINE else [""]
                for engine in engines:
                    seconds = start(
                        arguments,
                        stage,
                        engine,
                        folder=folder,
                        model=models[repeat % len(models)],
                        before=before,
                        environment=_environment(folder, before=before),
                    )
                    print(stage.value, engine, before, seconds, file=sys.stderr, flush=True)
                    if repeat == 0:
                        continue  # bytecode and file caches; with --compile, the compiled code
                    known = best.setdefault((stage.value, engine, before), seconds)
                    for part, value in seconds.items():
                        known[part] = min(known[part], value)
    return best


def _environment(folder: Path, *, before: bool) -> dict[str, str]:
    """Return the environment of a start: as in a pod, or without a common path of the models."""
    cache = str(folder / ("cache-before" if before else "cache"))
    common = {"VLLM_CACHE_ROOT": cache, "XDG_CACHE_HOME": cache, "SELFEMO_WORK": str(folder)}
    common["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # in this process, whose time is counted
    return common | ({"SELFEMO_WORK": ""} if before else {})


def lines(
    best: dict[tuple[str, str, bool], dict[str, float]], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the JSON lines to print."""
    result: list[dict[str, Any]] = []
    for (stage, engine, before), seconds in best.items():
        result.append(
            {
                "name": f"start: {stage}{' with ' + engine if engine else ''}"
                f"{', as before' if before else ''}",
                "value": round(sum(seconds.values()), 2),
                "unit": "s of processor time",
                **{part: round(seconds[part], 2) for part in PARTS if part in seconds},
            }
        )
    for engine in arguments.engines:
        sums = {
            before: sum(
                sum(seconds.values())
                for (stage, of_engine, way), seconds in best.items()
                if way == before and of_engine in ("", engine) and _in_generation(stage)
            )
            for before in {way for _, _, way in best}
        }
        line = {
            "name": f"start: all stages of a generation, {engine}",
            "value": round(sums[False], 2),
            "unit": "s of processor time",
        }
        if True in sums:
            line |= {"before": round(sums[True], 2), "ratio": round(sums[False] / sums[True], 3)}
        result.append(line)
    return result


def _in_generation(stage: str) -> bool:
    return stage not in (Stage.CHECK.value, Stage.WARM_START.value)


def main() -> None:
    """Run the benchmark, or one start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--engines", nargs="+", default=["Transformers"])
    parser.add_argument("--stages", nargs="+", default=[stage.value for stage in STAGES])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", action="store_true", help="also as it was before")
    parser.add_argument("--compile", action="store_true", help="let vLLM compile")
    for name in ("child", "engine", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in lines(measure(arguments, Path(folder)), arguments):
            print(json.dumps(line), flush=True)


def run_child() -> None:
    """Run one start, and print its marks."""
    marks = Marks()
    marks.mark("process")
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--model", type=Path)
    for name in ("child", "engine", "folder"):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_args()
    child(arguments, marks)
    print(json.dumps(marks.seconds), flush=True)
    os._exit(0)


if __name__ == "__main__":
    if "--child" in sys.argv:
        run_child()
    main()
