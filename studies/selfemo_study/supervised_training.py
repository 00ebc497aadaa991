"""Supervised training with the product's own command, `selfemo model warm-start`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfemo_api.spec import EvolutionSpec
from selfemo_api.text.files import write_atomically
from selfemo_jobs.base_models.warm_start_options import arguments_of
from selfemo_jobs.stages.warmstart.options import TrainingOptions, WarmStartOptions
from selfemo_jobs.store.hashing import file_sha256
from selfemo_study.study_config import StudyError
from selfemo_study.subprocesses import run_selfemo


@dataclass(frozen=True)
class SupervisedTraining:
    """One supervised training."""

    model: Path
    """The model to start from."""
    output: Path
    """The folder of the trained model."""
    source: Path
    """The file of dialogues."""
    format: str
    """The format of the file."""
    dialogues: int
    """The number of dialogues to use, from the first."""
    options: TrainingOptions
    """How the weights are trained."""
    seed: int

    def settings(self, spec: EvolutionSpec) -> dict[str, Any]:
        """Return all that the model follows from. Paths are given by their last part.

        Parameters
        ----------
        spec
            The evolution's spec, with the labels, the context and the prompts.
        """
        paths = {"model": self.model, "output": self.output}
        return {
            **{name: path.name for name, path in paths.items()},
            "source": file_sha256(self.source),
            "labels": list(spec.dataset.labels),
            "prompts": spec.model.prompts,
            "past": spec.dataset.context.past,
            "maxPromptTokens": spec.model.max_prompt_tokens,
            "format": self.format,
            "dialogues": self.dialogues,
            **self.options.model_dump(),
            "views": [f"{view.past},{view.future}" for view in self.options.views],
            "seed": self.seed,
        }


def train(training: SupervisedTraining, spec: EvolutionSpec, log: Path) -> float:
    """Train a model where it does not exist; return the seconds that the training took.

    Parameters
    ----------
    training
        The training.
    spec
        The evolution's spec, with the labels, the context and the prompts.
    log
        The file to which the standard error of the command is appended.

    Raises
    ------
    StudyError
        If the training fails, or the existing model was trained with other settings.
    """
    note_file = training.output.with_name(training.output.name + ".json")
    if (training.output / "config.json").is_file() and note_file.is_file():
        note = json.loads(note_file.read_text())
        if note["wanted"] != training.settings(spec):
            raise StudyError(f"{training.output} was trained with other settings: delete it")
        return float(note["seconds"])
    training.output.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    code, _ = run_selfemo(["model", "warm-start", *_options(training, spec)], log=log)
    if code:
        raise StudyError(f"the supervised training failed (exit code {code}); see {log}")
    seconds = round(time.monotonic() - began, 3)
    note = {"seconds": seconds, "wanted": training.settings(spec)}
    write_atomically(note_file, json.dumps(note, indent=1))
    return seconds


def _options(training: SupervisedTraining, spec: EvolutionSpec) -> list[str]:
    """Return the command line of a training, after the name of the command."""
    data: dict[str, Any] = {
        "--model": training.model,
        "--to": training.output,
        "--source": training.source,
        "--format": training.format,
        "--dialogues": training.dialogues,
        "--labels": ",".join(spec.dataset.labels),
    }
    if spec.resources.gpus_per_node > 0:
        data["--device"] = "cuda"
    options = WarmStartOptions(
        **dict(training.options),
        prompts=spec.model.prompts,
        past=spec.dataset.context.past,
        max_prompt_tokens=spec.model.max_prompt_tokens,
        seed=training.seed,
    )
    return [*(str(x) for pair in data.items() for x in pair), *arguments_of(options)]
