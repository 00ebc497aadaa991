"""Supervised training with the product's own command, `selfemo model warm-start`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfemo_api.spec import EvolutionSpec
from selfemo_jobs.base_models.warm_start_options import arguments_of
from selfemo_jobs.models.model_folder import model_sha256
from selfemo_jobs.stages.warmstart.options import TrainingOptions, WarmStartOptions
from selfemo_jobs.store.hashing import file_sha256
from selfemo_study.made_models import make_once
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
        """Return all that the model follows from, as a JSON object.

        Paths are given by their last part, and files by their content.

        Parameters
        ----------
        spec
            The evolution's spec, with the labels, the context and the prompts.
        """
        paths = {"model": self.model, "output": self.output}
        return {
            **{name: path.name for name, path in paths.items()},
            "modelSha256": model_sha256(self.model),
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

    def make(folder: Path) -> None:
        code, _ = run_selfemo(["model", "warm-start", *_options(training, spec, folder)], log=log)
        if code:
            raise StudyError(f"the supervised training failed (exit code {code}); see {log}")

    training.output.parent.mkdir(parents=True, exist_ok=True)
    return make_once(training.output, training.settings(spec), make).seconds


def _options(training: SupervisedTraining, spec: EvolutionSpec, folder: Path) -> list[str]:
    """Return the command line of a training to a folder, after the name of the command."""
    data: dict[str, Any] = {
        "--model": training.model,
        "--to": folder,
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
