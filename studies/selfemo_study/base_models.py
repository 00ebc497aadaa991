"""The models before their warm start, which rows and studies share."""

from __future__ import annotations

from pathlib import Path

from selfemo_study.study_config import BaseModelConfig, StudyError
from selfemo_study.study_folders import StudyFolders, exclusive_lock
from selfemo_study.subprocesses import run_selfemo


def prepare_base_model(base: BaseModelConfig, folders: StudyFolders) -> Path:
    """Return the model before its warm start, created where it does not exist.

    Parameters
    ----------
    base
        Which model it is.
    folders
        The study's folders.

    Raises
    ------
    StudyError
        If the command that creates the model fails.
    """
    output = (folders.base_models / base.folder).absolute()
    log = folders.base_models / f"{base.folder}.log"
    with exclusive_lock(folders.base_models / f"{base.folder}.lock"):
        if (output / "config.json").is_file():
            return output
        incomplete = output.with_name(output.name + ".making")
        options = ["--to", str(incomplete)]
        if base.model == "tiny":
            arguments = ["model", "tiny", *options]
        else:
            arguments = ["model", "prepare", base.model, "--layers", str(base.layers), *options]
        code, _ = run_selfemo(arguments, log=log)
        if code:
            raise StudyError(f"the base model could not be created (exit code {code}); see {log}")
        incomplete.rename(output)
    return output
