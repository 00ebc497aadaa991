"""The stage: its result, its messages and exit codes, and how it runs again."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.jobs.stages.check.world import World
from tests.unit.jobs.stages.spec_fields import covering, leaf_fields, with_another_value

from selfemo_api.contract import ENV_PARENT, ENV_TERMINATION_LOG, ENV_WORK, ExitCode
from selfemo_api.metrics import CheckMetric
from selfemo_api.results import FailureMessage, StageResult, decode_message
from selfemo_api.spec import EvolutionSpec
from selfemo_jobs.errors import InputProblems
from selfemo_jobs.models.best_manifest import BestManifest, best_uri
from selfemo_jobs.models.resume import locate_model
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import read_manifest
from selfemo_jobs.stages.check.stage import PROGRAM
from selfemo_jobs.store import open_store

STAGE = "selfemo_jobs.stages.check"


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))


def run_stage(world: World, *python: str) -> tuple[subprocess.CompletedProcess[str], object]:
    """Run the stage as a process; return it and its message."""
    file, message = world.folder / "config.json", world.folder / "termination.json"
    file.write_text(world.config().model_dump_json(by_alias=True))
    done = subprocess.run(
        [sys.executable, *(python or ("-m", STAGE)), "--config", str(file)],
        env={**os.environ, ENV_PARENT: str(os.getpid()), ENV_TERMINATION_LOG: str(message)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done, decode_message(message.read_text())


def run(world: World) -> StageResult:
    result = PROGRAM.run(world.config())
    assert isinstance(result, StageResult)
    return result


def test_the_result_has_the_label_prior_and_the_manifest_the_warnings(world: World) -> None:
    world.write_dialogues("dev", 4, 3)
    result = run(world)
    assert result.label_shares == [0.25] * 4
    assert set(result.metrics) == set(CheckMetric)
    assert result.metrics[CheckMetric.WARNINGS] == 1
    manifest, _ = read_manifest(open_store(world.config().spec.storage), result.manifest)
    (warning,) = manifest.report["warnings"]
    assert warning.startswith("dataset.sources[1]: ")
    assert manifest.report["sources"]["dev"] == {"dialogues": 3, "utterances": 12, "labeled": 12}
    unlabeled = manifest.report["sources"]["train"]
    assert (unlabeled["labeled"], unlabeled["dialogues"] > 0) == (0, True)
    assert manifest.report["model"].keys() == {"type", "layers", "hiddenSize"}
    assert manifest.label_prior == {"neutral": 0.25, "joy": 0.25, "sadness": 0.25, "anger": 0.25}


def test_equal_inputs_have_equal_manifests(world: World) -> None:
    first = run(world)
    assert run(world).manifest_sha256 == first.manifest_sha256
    manifest = Path(first.manifest.removeprefix("file://"))
    manifest.unlink()
    assert run(world).manifest_sha256 == first.manifest_sha256


def test_it_runs_again_though_its_result_is_stored(world: World) -> None:
    """A file that has changed since then is read again, and another setting does not prevent it."""
    first = run(world)
    world.write_dialogues("train", 0, 8, lambda turn: turn.update(labels=["joy"]))
    world.spec["dataset"]["labeledDialogues"] = 4
    second = run(world)
    assert (second.reused, second.manifest) == (False, first.manifest)
    shares = {"neutral": 1 / 19, "joy": 16 / 19, "sadness": 1 / 19, "anger": 1 / 19}
    assert second.label_shares == list(shares.values())
    stored, digest = read_manifest(open_store(world.config().spec.storage), first.manifest)
    assert (stored.label_prior, digest) == (shares, second.manifest_sha256)
    (world.folder / "dev.jsonl").unlink()
    with pytest.raises(InputProblems, match=r"^dataset\.sources\[1\]\.uri: "):
        run(world)


def test_each_changed_setting_makes_it_run_again(world: World) -> None:
    """Field by field: a stored result never answers."""
    config = world.config()
    document = {**config.spec.to_json(), "queue": {"name": "queue"}, "podTemplate": []}
    document["model"]["resumeFrom"] = "file:///first/manifest.json"
    document["training"]["lora"] = {"rank": 4}
    document["storage"]["credentialsSecretRef"] = {"name": "keys"}
    document["reward"]["judge"]["views"] = [{"past": 1}]
    document["podTemplate"] = [{"stages": ["Train"], "template": {"image": "first"}}]
    spec = EvolutionSpec.model_validate(document)
    runs: list[int] = []

    def work(_context: StageContext) -> StageOutput:
        runs.append(1)
        return StageOutput()

    program = dataclasses.replace(PROGRAM, work=work)
    paths = [path for path in leaf_fields() if not path.startswith("storage.")]
    for count, path in enumerate(paths, start=1):
        relevant = covering(path, program.relevant)
        changed = with_another_value(spec, path, relevant)
        result = program.run(config.model_copy(update={"spec": changed}))
        assert isinstance(result, StageResult) and not result.reused, path
        assert len(runs) == count, path


def test_a_check_that_fails_stores_nothing(world: World) -> None:
    world.spec["model"]["uri"] = "file:///nowhere"
    with pytest.raises(InputProblems):
        run(world)
    assert not (world.folder / "storage").exists()


def test_the_process_succeeds_without_torch(world: World) -> None:
    """Importing torch alone would take as long as the check."""
    code = (
        "import sys; from selfemo_jobs.stages.check.__main__ import main; code = main()\n"
        "heavy = {'torch', 'deepspeed', 'daft', 'vllm', 'trl'} & sys.modules.keys()\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else code)"
    )
    world.spec["model"] |= {"prompts": "chat-v1", "maxPromptTokens": 512}
    done, message = run_stage(world, "-c", code)
    assert done.returncode == ExitCode.OK, done.stderr
    assert isinstance(message, StageResult)
    assert len(message.label_shares) == 4


def test_the_process_fails_with_a_line_for_each_problem(world: World) -> None:
    (world.folder / "dev.jsonl").unlink()
    world.edit_config(quantization_config={"quant_method": "awq", "bits": 4})
    done, message = run_stage(world)
    assert done.returncode == ExitCode.BAD_INPUT
    assert isinstance(message, FailureMessage)
    heading, *problems = message.error.splitlines()
    assert (message.kind, heading) == ("BadInput", "2 problems")
    assert [line.partition(":")[0] for line in problems] == ["dataset.sources[1].uri", "model.uri"]
    records = [json.loads(line) for line in done.stderr.splitlines()]
    logged = [record["message"] for record in records if record["level"] == "error"]
    assert logged[:2] == problems


def test_the_process_reports_that_the_stages_are_not_installed(world: World) -> None:
    code = (
        "import sys; sys.modules['tokenizers'] = None\n"
        "from selfemo_jobs.stages.check.__main__ import main; sys.exit(main())"
    )
    done, message = run_stage(world, "-c", code)
    assert done.returncode == ExitCode.BAD_INPUT
    assert message == FailureMessage(
        error="the stages need tokenizers, which is not installed: install the `jobs` extra "
        "(`tools/uv sync --inexact --extra jobs` in the checkout)",
        kind="BadInput",
    )


def test_a_storage_that_cannot_be_opened_is_one_problem_among_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in that storage is not reported again."""
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    world.spec["storage"] = {"uri": "s3://bucket/runs"}
    world.sources[1]["uri"] = "s3://bucket/dev.jsonl"
    (world.folder / "extra.jsonl").unlink()
    with pytest.raises(InputProblems) as caught:
        run(world)
    extra = f"{world.folder}/extra.jsonl"
    assert str(caught.value).splitlines() == [
        "2 problems",
        "storage.uri: s3://bucket/runs: AWS_CA_BUNDLE is /nowhere/ca.pem, which does not exist: "
        "fix or unset the variable",
        f"dataset.sources[2].uri: file://{extra}: {extra} does not exist",
    ]


def test_a_model_of_another_run_is_checked(world: World) -> None:
    world.spec["model"]["resumeFrom"] = "file:///nowhere/train/manifest.json"
    assert world.problems() == [
        "model.resumeFrom: file:///nowhere/train/manifest.json does not exist: the stage that "
        "writes it has not finished"
    ]


def test_the_stages_read_the_model_of_another_run_that_was_checked(world: World) -> None:
    storage = world.config().spec.storage
    store, other = open_store(storage), f"{storage.uri}/default/other-00000001"
    uri = best_uri(other)

    def promote(model: Path) -> None:
        best = BestManifest(
            run="default/other-00000001", generation=1, f1=0.5, model=model.as_uri()
        )
        store.put(uri, best.encode())

    promote(world.folder / "nowhere")
    world.spec["model"]["resumeFrom"] = uri
    with pytest.raises(InputProblems, match="does not exist"):
        PROGRAM.run(world.config())
    promote(world.model)
    world.problems()  # `selfemo check` records nothing
    assert not store.exists(f"{storage.uri}/{world.config().run}/resumed.json")
    PROGRAM.run(world.config())
    promote(world.folder / "nowhere")
    assert locate_model(world.config(), store, uri) == (world.model.as_uri(), None)
    assert world.problems() == []


def test_a_model_of_a_python_package_that_does_not_exist(world: World) -> None:
    world.spec["model"]["uri"] = "package://smollm2?layers=99"
    assert world.problems() == [
        "model.uri: package://smollm2?layers=99: there is no such model: it must be "
        "package://smollm2, or package://smollm2?layers=N with N from 1 to 30"
    ]
