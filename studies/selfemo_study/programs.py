"""Starts the product's own programs: the command and its stages, as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfemo_api.contract import ENV_DATA, ENV_PARENT, ENV_TERMINATION_LOG, ENV_WORK, StageConfig
from selfemo_api.spec import EvolutionSpec, Source
from selfemo_api.text.files import write_atomically
from selfemo_study.paths import Places
from selfemo_study.study_config import MODELS, StudyError

SELFEMO = Path(sys.executable).parent / "selfemo"


@dataclass(frozen=True)
class Data:
    """Folder by data volume."""

    volumes: Mapping[str, Path]

    @classmethod
    def of(cls, given: Mapping[str, str], places: Places) -> Data:
        """Return the study's volumes with the harness's own. Raises StudyError."""
        volumes = {name: Path(folder).expanduser().absolute() for name, folder in given.items()}
        for name, folder in volumes.items():
            if not folder.is_dir():
                raise StudyError(f"data volume `{name}`: {folder} is no folder: give --data")
        return cls({**volumes, MODELS: places.models.absolute()})

    @property
    def options(self) -> list[str]:
        """The command's options."""
        return [x for name, folder in self.volumes.items() for x in ("--data", f"{name}={folder}")]

    @property
    def variable(self) -> str:
        """The stages' environment variable."""
        return ":".join(f"{name}={folder}" for name, folder in sorted(self.volumes.items()))

    def path(self, uri: str) -> Path:
        """Return the path of a `data://` or `file://` URI. Raises StudyError."""
        scheme, _, rest = uri.partition("://")
        volume, _, below = rest.partition("/")
        if scheme == "file":
            return Path(rest)
        if scheme != "data" or volume not in self.volumes:
            raise StudyError(f"{uri}: its data volume is not given; there are: {self.options}")
        return self.volumes[volume] / below


def selfemo(arguments: Sequence[str], *, log: Path, cwd: Path | None = None) -> tuple[int, str]:
    """Run the command; return its exit code and its standard output."""
    with log.open("ab") as errors:
        done = subprocess.run(
            [str(SELFEMO), *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            check=False,
        )
    return done.returncode, done.stdout.decode()


def run_stage(config: StageConfig, folder: Path, data: Data) -> None:
    """Run one stage as a process, in a scratch folder. Raises StudyError where it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.json", config.model_dump_json(by_alias=True, indent=1))
    run_module(
        config.stage.module,
        folder / "config.json",
        log=folder / "log.jsonl",
        environment={
            ENV_DATA: data.variable,
            ENV_WORK: str((folder / "work").absolute()),
            ENV_TERMINATION_LOG: str((folder / "termination.json").absolute()),
        },
    )


def run_module(
    module: str, config: Path, *, log: Path, environment: Mapping[str, str] = {}
) -> None:
    """Run ``python -m module --config FILE``. Raises StudyError where it fails."""
    everything = {**os.environ, ENV_PARENT: str(os.getpid()), "TQDM_DISABLE": "1", **environment}
    with log.open("ab") as errors:
        done = subprocess.run(
            [sys.executable, "-m", module, "--config", str(config)],
            env=everything,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            check=False,
        )
    if done.returncode:
        raise StudyError(f"{module} ended with exit code {done.returncode}; see {log}")


@dataclass(frozen=True)
class Supervised:
    """One supervised training: `selfemo model warm-start`."""

    model: Path
    output: Path
    source: Path
    format: str
    dialogues: int
    steps: int
    batch_size: int
    learning_rate: float
    responder_share: float
    freeze_embeddings: bool
    train_layers: int | None
    views: tuple[str, ...]
    """As the command takes them."""
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Return all that the model follows from; places by their last names."""
        return {k: _plain(v) for k, v in vars(self).items()}


def _plain(value: Any) -> Any:
    """Return a value as it comes back from JSON."""
    if isinstance(value, Path):
        return value.name
    return list(value) if isinstance(value, tuple) else value


def train_supervised(wanted: Supervised, spec: EvolutionSpec, log: Path) -> float:
    """Train, unless the model is there; return the seconds that it took.

    Raises
    ------
    StudyError
        If the training fails, or the model that is there was trained otherwise.
    """
    noted = wanted.output.with_name(wanted.output.name + ".json")
    if (wanted.output / "config.json").is_file() and noted.is_file():
        note = json.loads(noted.read_text())
        if note["wanted"] != wanted.to_json():
            raise StudyError(f"{wanted.output} was trained with other settings: delete it")
        return float(note["seconds"])
    wanted.output.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    code, _ = selfemo(["model", "warm-start", *_options(wanted, spec)], log=log)
    if code:
        raise StudyError(f"the supervised training failed (exit code {code}); see {log}")
    seconds = round(time.monotonic() - began, 3)
    write_atomically(noted, json.dumps({"seconds": seconds, "wanted": wanted.to_json()}, indent=1))
    return seconds


def _options(wanted: Supervised, spec: EvolutionSpec) -> list[str]:
    options: dict[str, Any] = {
        "--model": wanted.model,
        "--output": wanted.output,
        "--source": wanted.source,
        "--format": wanted.format,
        "--dialogues": wanted.dialogues,
        "--labels": ",".join(spec.dataset.labels),
        "--prompts": spec.model.prompts,
        "--past": spec.dataset.context.past,
        "--max-prompt-tokens": spec.model.max_prompt_tokens,
        "--steps": wanted.steps,
        "--batch-size": wanted.batch_size,
        "--learning-rate": wanted.learning_rate,
        "--responder-share": wanted.responder_share,
        "--seed": wanted.seed,
    }
    if wanted.train_layers is not None:
        options["--train-layers"] = wanted.train_layers
    flags = [x for view in wanted.views for x in ("--view", view)]
    flags += ["--freeze-embeddings"] if wanted.freeze_embeddings else []
    return [str(x) for pair in options.items() for x in pair] + flags


def dialogues_of(source: Source, labels: Sequence[str], data: Data, *, read_labels: bool) -> Any:
    """Return a source's dialogues."""
    from selfemo_jobs.datasets.load import load_source

    return load_source(source, list(labels), data.path(source.uri), read_labels=read_labels)
