"""The stage as a process: what it publishes, and that DeepSpeed did the work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tests.integration.operator.process import free_port
from tests.unit.jobs.stages.train.conftest import Run, start
from tests.unit.jobs.stages.train.kept_tables import kept_table, put_kept
from transformers import AutoModelForCausalLM

from selfemo_api.contract import ENV_METRICS_PORT, ExitCode, StageConfig
from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.base_models.tiny import make_tiny
from selfemo_jobs.models.description_file import read_description
from selfemo_jobs.models.model_folder import model_sha256
from selfemo_jobs.models.model_reference import resolve_model
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.runtime.step_curve import read_curve
from selfemo_jobs.stages.train.checkpoints import complete_steps
from selfemo_jobs.store.hashing import file_sha256

#: Ten groups of four in steps of eight: five steps an epoch. A rate that moves the weights well.
TRAINING: dict[str, Any] = {
    "batchSize": 8,
    "microBatchSize": 4,
    "optimizer": {"learningRate": 1e-3},
    "epochs": 4,
    "precision": "Float32",
    "gradientCheckpointing": False,
    "checkpointSteps": 4,
    "deepspeed": {"zeroStage": 0},
}


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    make_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def configure(
    tmp_path_factory: pytest.TempPathFactory, policy: Path
) -> Callable[..., tuple[Path, StageConfig]]:
    """Return a folder of a new run and its configuration; arguments are of `training`."""

    def build(
        groups: int = 10,
        reference: Path | None = None,
        nodes: int = 1,
        processes: int = 1,
        **training: Any,
    ) -> tuple[Path, StageConfig]:
        folder = tmp_path_factory.mktemp("run")
        source = {"uri": "file:///demo.jsonl", "format": "JSONL"}
        spec = EvolutionSpec.model_validate(
            {
                "model": {"uri": policy.as_uri()},
                "dataset": {
                    "labels": list(MELD),
                    "sources": [
                        {"name": "demo", "use": "SelfPlay", **source},
                        {"name": "dev", "use": "Evaluation", **source},
                    ],
                },
                "storage": {"uri": f"file://{folder}/store"},
                "selfPlay": {"groupSize": 4},
                "training": TRAINING | training,
                "resources": {"gpusPerNode": 0, "nodes": nodes, "processesPerNode": processes},
            }
        )
        config = StageConfig(
            stage=Stage.TRAIN,
            run="default/demo-0",
            generation=1,
            seed=3,
            spec=spec,
            policy_uri=policy.as_uri(),
            judge_uri=(reference or policy).as_uri(),
            output=f"{spec.storage.uri}/default/demo-0/generations/001/train",
        )
        table = kept_table(policy, groups, 4) if groups else SCORED.empty_table()
        return folder, put_kept(config, table)

    return build


@pytest.fixture(scope="session")
def finish(configure: Callable[..., tuple[Path, StageConfig]]) -> Callable[..., Run]:
    """Run the stage to its end."""

    def run(**arguments: Any) -> Run:
        done = start(*configure(**arguments))
        assert done.wait() == ExitCode.OK, done.log[-3000:]
        return done

    return run


@pytest.fixture(scope="session")
def one(finish: Callable[..., Run]) -> Run:
    """One process, ZeRO 0, undisturbed."""
    return finish()


@pytest.fixture(scope="session")
def two(finish: Callable[..., Run]) -> Run:
    """Two processes, ZeRO 2, undisturbed."""
    return finish(processes=2, deepspeed={"zeroStage": 2})


@pytest.fixture(scope="session")
def two_imitating(finish: Callable[..., Run]) -> Run:
    """Two processes, ZeRO 2, whose last layer learns the answers as well."""
    return finish(imitation=1.0, trainLayers=1, processes=2, deepspeed={"zeroStage": 2})


def lines(run: Run, message: str) -> list[dict[str, Any]]:
    found = []
    for line in run.log.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            if record["message"] == message:
                found.append(record)
    return found


def weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(load_file(run.model / "model.safetensors"))


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def descendants(run: Run) -> list[psutil.Process]:
    return psutil.Process(run.process.pid).children(recursive=True)


@pytest.mark.distributed
def test_the_manifest_lists_a_model_that_loads(one: Run, policy: Path) -> None:
    manifest = one.manifest
    assert manifest.model == f"model-{model_sha256(one.model)[:12]}"
    names = {p.path for p in manifest.parts}
    assert names == {f"{manifest.model}/{p.name}" for p in policy.iterdir()}
    for part in manifest.parts:
        path = one.model.parent / part.path
        assert (file_sha256(path), path.stat().st_size) == (part.sha256, part.size)
        if not path.name.endswith(".safetensors"):
            assert path.read_bytes() == (policy / path.name).read_bytes()
    AutoModelForCausalLM.from_pretrained(one.model)
    metrics = manifest.metrics
    assert (metrics["steps"], metrics["rows"]) == (20, 40)
    assert metrics["tokens"] % 4 == 0
    assert 0.9 < metrics["importanceMean"] < 1.1
    assert metrics["kl"] == 0.0
    assert "model.safetensors.index.json" not in names
    before = load_file(policy / "model.safetensors")
    after = weights(one)
    assert before.keys() == after.keys()
    assert all(after[n].dtype == before[n].dtype for n in before)
    assert max((after[n] - before[n]).abs().max().item() for n in before) > 1e-3


@pytest.mark.distributed
def test_the_model_describes_itself(one: Run, policy: Path) -> None:
    description = read_description(one.model)
    assert description is not None and description.origin is not None
    hashes = {p.path.removeprefix(f"{one.manifest.model}/"): p.sha256 for p in one.manifest.parts}
    assert description.weights_sha256 == hashes
    assert description.labels == list(MELD)
    assert description.origin.parents == one.manifest.parents
    assert description.origin.stage == "Train" and description.scores == []
    assert description.versions == one.manifest.versions
    assert resolve_model(str(one.model)) == (one.model, description)
    assert ModelCard.load(one.model / "README.md").data.library_name == "transformers"
    assert not (policy / "selfemo.json").exists(), "nothing is written to the user's model"


@pytest.mark.distributed
def test_the_manifest_stores_the_steps_that_the_log_showed(one: Run) -> None:
    curve = read_curve(one.manifest.report)
    progress = lines(one, "progress")
    assert curve["step"] == [line["done"] for line in progress] == list(range(1, 21))
    for name in ("loss", "gradNorm", "learningRate"):
        assert curve[name] == pytest.approx([line[name] for line in progress], abs=1e-6, rel=1e-5)
    assert set(curve) == {"step", "loss", "gradNorm", "learningRate", "entropy"}


@pytest.mark.distributed
def test_a_deepspeed_engine_does_the_work(one: Run) -> None:
    (ready,) = lines(one, "the engine is ready")
    assert (ready["engine"], ready["zeroStage"], ready["worldSize"]) == ("DeepSpeedEngine", 0, 1)


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in lines(run, "progress")]


def assert_same_training(run: Run, other: Run) -> None:
    """Sums in another order differ by rounding, which Adam's square root makes larger."""
    assert losses(run) == pytest.approx(losses(other), abs=1e-3)
    theirs = weights(other)
    for name, found in weights(run).items():
        torch.testing.assert_close(found, theirs[name], rtol=0, atol=1e-3)
    moved = torch.cat([(w - theirs[n]).flatten() for n, w in weights(run).items()])
    assert moved.abs().mean().item() < 1e-5


@pytest.mark.distributed
@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_two_processes_agree_with_one(
    stage: int, one: Run, two: Run, finish: Callable[..., Run]
) -> None:
    both = two if stage == 2 else finish(processes=2, deepspeed={"zeroStage": 3})
    (ready,) = lines(both, "the engine is ready")
    assert (ready["engine"], ready["zeroStage"], ready["worldSize"]) == (
        "DeepSpeedEngine",
        stage,
        2,
    )
    assert_same_training(both, one)


def listening_addresses(process: psutil.Process) -> set[str]:
    """Return the addresses at which a process accepts connections over TCP."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        connections = process.net_connections("tcp")
        return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return set()


@pytest.mark.distributed
@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_on_one_node_listens_on_the_loopback_interface_alone(
    processes: int, configure: Callable[..., tuple[Path, StageConfig]]
) -> None:
    """The processes exchange pickles, so that a stranger who connects could run code."""
    run = start(*configure(processes=processes, deepspeed={"zeroStage": 2}))
    found: set[str] = set()

    def has_begun() -> bool:
        for process in [psutil.Process(run.process.pid), *descendants(run)]:
            found.update(listening_addresses(process))
        return bool(lines(run, "progress"))

    wait_for(has_begun)
    run.process.terminate()
    assert run.wait() == ExitCode.TERMINATED
    assert found == {"127.0.0.1"}


@pytest.mark.distributed
def test_killed_after_a_checkpoint_it_ends_with_the_same_bytes(
    one: Run, configure: Callable[..., tuple[Path, StageConfig]]
) -> None:
    folder, config = configure()
    run = start(folder, config)
    wait_for(lambda: any(folder.glob("work/*/*/*/job-*/checkpoints/checkpoint-*/whole.json")))
    children = descendants(run)
    assert children
    os.kill(run.process.pid, signal.SIGKILL)
    run.wait()
    wait_for(lambda: not any(p.is_running() and p.status() != "zombie" for p in children), 10)
    (torn,) = folder.glob("work/*/*/*/job-*/checkpoints")
    (torn / "checkpoint-9999").mkdir()  # one that was being written
    assert not (Path(config.output.removeprefix("file://")) / "manifest.json").exists()
    run = start(folder, config)
    assert run.wait() == ExitCode.OK, run.log[-3000:]
    assert lines(run, "resumes from a checkpoint")
    assert run.manifest.encode() == one.manifest.encode()


def kill_after_checkpoints(count: int, folder: Path, config: StageConfig) -> None:
    run = start(folder, config)
    markers = "work/*/*/*/job-*/checkpoints/checkpoint-*/whole.json"
    wait_for(lambda: len([*folder.glob(markers)]) >= count)
    os.kill(run.process.pid, signal.SIGKILL)
    run.wait()


@pytest.mark.distributed
def test_killed_with_few_trained_layers_it_ends_with_the_same_bytes(
    finish: Callable[..., Run], configure: Callable[..., tuple[Path, StageConfig]]
) -> None:
    """The layers below are read again as before: each group beside those of the first epoch."""
    training: dict[str, Any] = {"trainLayers": 1, "microBatchSize": 8}
    undisturbed = finish(**training)
    folder, config = configure(**training)
    kill_after_checkpoints(1, folder, config)
    run = start(folder, config)
    assert run.wait() == ExitCode.OK, run.log[-3000:]
    assert lines(run, "resumes from a checkpoint")
    assert run.manifest.encode() == undisturbed.manifest.encode()


@pytest.mark.distributed
def test_a_damaged_checkpoint_is_not_used(
    one: Run, configure: Callable[..., tuple[Path, StageConfig]]
) -> None:
    folder, config = configure()
    kill_after_checkpoints(2, folder, config)
    (checkpoints,) = folder.glob("work/*/*/*/job-*/checkpoints")
    *before, damaged = complete_steps(checkpoints)
    file = max(checkpoints.glob(f"checkpoint-{damaged}/**/*.pt"), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # the size stays
    file.write_bytes(content)
    run = start(folder, config)
    assert run.wait() == ExitCode.OK, run.log[-3000:]
    assert f"checkpoint-{damaged} is damaged and not used" in run.log
    assert [line["step"] for line in lines(run, "resumes from a checkpoint")] == before[-1:]
    assert run.manifest.encode() == one.manifest.encode()


@pytest.mark.slow
@pytest.mark.distributed
def test_sigterm_saves_two_processes_and_they_go_on(
    two: Run, configure: Callable[..., tuple[Path, StageConfig]]
) -> None:
    folder, config = configure(processes=2, deepspeed={"zeroStage": 2})
    run = start(folder, config)
    wait_for(lambda: bool(lines(run, "progress")))
    children = descendants(run)
    assert len(children) == 3  # torchrun and two workers
    run.process.terminate()
    assert run.wait() == ExitCode.TERMINATED
    wait_for(lambda: not any(p.is_running() and p.status() != "zombie" for p in children), 10)
    run = start(folder, config)
    assert run.wait() == ExitCode.OK, run.log[-3000:]
    steps = [line["step"] for line in lines(run, "resumes from a checkpoint")]
    assert steps
    assert 0 < steps[0] < 20
    assert run.manifest.encode() == two.manifest.encode()


@pytest.mark.distributed
def test_lora_is_merged_and_the_kl_is_to_the_reference(
    finish: Callable[..., Run], policy: Path, tmp_path: Path
) -> None:
    reference = tmp_path / "reference"
    make_tiny(reference, seed=5)
    run = finish(
        reference=reference,
        epochs=1,
        klBeta=0.05,
        lora={"rank": 4, "alpha": 8.0},
        processes=2,
        deepspeed={"zeroStage": 3},
    )
    before, after = load_file(policy / "model.safetensors"), weights(run)
    assert before.keys() == after.keys()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed
    assert all(n.endswith("_proj.weight") for n in changed)
    delta = (
        after["model.layers.0.mlp.up_proj.weight"] - before["model.layers.0.mlp.up_proj.weight"]
    ).double()
    assert torch.linalg.matrix_rank(delta, rtol=1e-3) <= 4
    assert run.manifest.metrics["kl"] > 0.01


@pytest.mark.distributed
def test_adapters_are_trained_without_dropout(finish: Callable[..., Run]) -> None:
    settings = {"rank": 4, "alpha": 8.0}
    plain, other = (
        weights(finish(epochs=1, maxSteps=3, lora={**settings, "dropout": dropout}))
        for dropout in (0.0, 0.5)
    )
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.distributed
def test_agreed_answers_are_learnt_by_the_last_layers(
    two_imitating: Run, one: Run, policy: Path
) -> None:
    run = two_imitating
    metrics = run.manifest.metrics
    # an answer for each of the five recognizer groups, and the best of each responder group
    assert metrics["rows"] == 40 + 5 + 5
    assert metrics["tokens"] == one.manifest.metrics["tokens"]
    assert metrics["imitation"] > 0.0
    answers = [loss for loss in read_curve(run.manifest.report)["imitation"] if loss > 0.0]
    assert answers[-1] < answers[0] - 0.2  # the answer is always the same
    before, after = load_file(policy / "model.safetensors"), weights(run)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    top = max(int(n.split(".")[2]) for n in before if n.startswith("model.layers."))
    assert {n for n in before if n.startswith(f"model.layers.{top}.")} <= changed
    assert all(n.startswith((f"model.layers.{top}.", "model.norm.")) for n in changed)


@pytest.mark.distributed
def test_two_processes_imitate_with_the_same_weight_as_one(
    two_imitating: Run, finish: Callable[..., Run]
) -> None:
    assert_same_training(two_imitating, finish(imitation=1.0, trainLayers=1))


def rates(run: Run) -> list[float]:
    return [line["learningRate"] for line in lines(run, "progress")]


def test_the_rate_stays_or_falls_to_zero(finish: Callable[..., Run], one: Run) -> None:
    assert set(rates(one)) == {1e-3}  # the only step of the rise has the whole rate
    falling = rates(finish(optimizer={"learningRate": 1e-3, "schedule": "Linear"}))
    assert len(falling) == len(rates(one)) > 2
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < rates(one)[-1] / 2


def test_a_training_of_one_step_changes_the_weights(
    finish: Callable[..., Run], policy: Path
) -> None:
    run = finish(maxSteps=1)
    assert rates(run) == [1e-3]
    before = dict(load_file(policy / "model.safetensors"))
    assert any(not torch.equal(before[name], value) for name, value in weights(run).items())


def test_the_figures_do_not_depend_on_the_micro_batch(finish: Callable[..., Run]) -> None:
    """Five rows: one of three micro-batches of four is padding alone."""
    shape: dict[str, Any] = {"groups": 1, "batchSize": 12, "imitation": 1.0, "epochs": 1}
    runs = [finish(**shape, microBatchSize=size) for size in (4, 12)]
    small, large = (run.manifest.metrics for run in runs)
    assert small["imitation"] > 0
    for name in ("loss", "imitation", "entropy", "clipLow", "clipHigh", "importanceMean"):
        assert small[name] == pytest.approx(large[name], rel=1e-3, abs=1e-6), name


def test_too_many_layers_are_refused(configure: Callable[..., tuple[Path, StageConfig]]) -> None:
    run = start(*configure(groups=1, trainLayers=64))
    assert run.wait() == ExitCode.BAD_INPUT
    assert "`training.trainLayers` is 64" in (run.folder / "termination.json").read_text()


def test_no_rows_hand_the_policy_on(finish: Callable[..., Run], policy: Path) -> None:
    run = finish(groups=0)
    assert run.manifest.metrics == {"steps": 0.0}
    assert lines(run, "no group was kept: the policy is handed on unchanged")
    for path in policy.iterdir():
        assert (run.model / path.name).read_bytes() == path.read_bytes()


@pytest.mark.distributed
def test_bfloat16_on_a_cpu_rounds_products_alone(finish: Callable[..., Run], one: Run) -> None:
    """Weights stay float32 and end close to those of Float32; a step loses nothing to rounding.

    Layers that are computed again are rounded, too.
    """
    run = finish(precision="BFloat16", gradientCheckpointing=True)
    found, exact = weights(run), weights(one)
    assert all(found[name].dtype == exact[name].dtype for name in exact)
    assert any(not torch.equal(found[name], exact[name]) for name in exact)
    assert losses(run)[0] == pytest.approx(losses(one)[0], abs=0.05)
    assert run.manifest.metrics["clipHigh"] == pytest.approx(
        one.manifest.metrics["clipHigh"], abs=0.1
    )


@pytest.mark.slow
@pytest.mark.distributed
def test_two_nodes_make_one_model(configure: Callable[..., tuple[Path, StageConfig]]) -> None:
    """Each node runs the stage, the last one publishes, and one that comes again just ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    folder, config = configure(nodes=2, epochs=1, deepspeed={"zeroStage": 2})
    nodes = [
        start(folder / str(n), config, JOB_COMPLETION_INDEX=str(n), SELFEMO_RENDEZVOUS=where)
        for n in (0, 1)
    ]
    for node in nodes:
        assert node.wait() == ExitCode.OK, node.log[-3000:]
    (ready,) = lines(nodes[0], "the engine is ready")
    assert ready["worldSize"] == 2
    manifest = nodes[0].manifest
    assert f"{manifest.model}/model.safetensors" in {p.path for p in manifest.parts}
    output = Path(config.output.removeprefix("file://"))
    (output / "manifest.json").unlink()
    for number in (1, 0):  # one after the other: neither waits for the other
        again = start(
            folder / "again", config, JOB_COMPLETION_INDEX=str(number), SELFEMO_RENDEZVOUS=where
        )
        assert again.wait() == ExitCode.OK, again.log[-3000:]
    assert again.manifest.encode() == manifest.encode()


@pytest.mark.slow
@pytest.mark.distributed
def test_the_first_node_uploads_again_after_the_others_have_ended(
    configure: Callable[..., tuple[Path, StageConfig]],
) -> None:
    """Its pod was replaced while it uploaded the model. In a later attempt all train again."""
    where = f"127.0.0.1:{free_port()}"
    folder, config = configure(nodes=2, epochs=1, deepspeed={"zeroStage": 2})
    output = Path(config.output.removeprefix("file://"))

    def node(number: int, place: str = where) -> Run:
        environment = {"JOB_COMPLETION_INDEX": str(number), "SELFEMO_RENDEZVOUS": place}
        return start(folder / str(number), config, **environment)

    nodes = [node(0), node(1)]
    for run in nodes:
        assert run.wait() == ExitCode.OK, run.log[-3000:]
    manifest = nodes[0].manifest.encode()
    for file in ("manifest.json", "shards/00000.json"):
        (output / file).unlink()
    again = node(0)
    assert again.wait() == ExitCode.OK, again.log[-3000:]
    assert again.manifest.encode() == manifest
    for file in ("manifest.json", "shards/00000.json"):
        (output / file).unlink()
    later = node(0, f"127.0.0.1:{free_port()}")
    wait_for(lambda: bool(descendants(later)))
    later.process.terminate()
    assert later.wait() == ExitCode.TERMINATED


@pytest.fixture(autouse=True)
def no_leavings() -> Iterator[None]:
    """Fail where a training process is left behind."""
    yield
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "selfemo_jobs.stages.train.worker" in command and process.ppid() == 1:
            pytest.fail(f"left behind: {command}")


def test_its_loss_can_be_scraped_while_it_runs(
    configure: Callable[..., tuple[Path, StageConfig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv(ENV_METRICS_PORT, str(port))
    done = start(*configure(epochs=50))
    try:
        text = ""
        deadline = time.monotonic() + 120
        while "selfemo_stage_loss{" not in text and time.monotonic() < deadline:
            assert done.process.poll() is None, done.log[-3000:]
            with contextlib.suppress(OSError):
                text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
            time.sleep(0.1)
        assert 'selfemo_stage_total{name="demo",stage="Train"} 250.0' in text
    finally:
        done.process.terminate()
        done.wait()
