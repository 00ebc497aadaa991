"""Starts the product's own programs, the command and its stages, as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from selfemo_api.contract import ENV_DATA, ENV_PARENT, ENV_TERMINATION_LOG, ENV_WORK, StageConfig
from selfemo_api.text.files import write_atomically
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.study_config import StudyError

SELFEMO = Path(sys.executable).parent / "selfemo"


def run_selfemo(
    arguments: Sequence[str], *, log: Path, directory: Path | None = None
) -> tuple[int, str]:
    """Run the command `selfemo`; return its exit code and its standard output.

    Parameters
    ----------
    arguments
        The arguments of the command.
    log
        The file to which its standard error is appended.
    directory
        Its working directory. None: that of this process.
    """
    with log.open("ab") as errors:
        process = subprocess.run(
            [str(SELFEMO), *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            check=False,
        )
    return process.returncode, process.stdout.decode()


def run_stage(config: StageConfig, folder: Path, volumes: DataVolumes) -> None:
    """Run one stage as a process.

    Parameters
    ----------
    config
        The configuration of the stage.
    folder
        The folder for its configuration, its log and its scratch files.
    volumes
        The data volumes.

    Raises
    ------
    StudyError
        If the stage fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.json", config.model_dump_json(by_alias=True, indent=1))
    run_module(
        config.stage.module,
        folder / "config.json",
        log=folder / "log.jsonl",
        environment={
            ENV_DATA: volumes.variable,
            ENV_WORK: str((folder / "work").absolute()),
            ENV_TERMINATION_LOG: str((folder / "termination.json").absolute()),
        },
    )


def run_module(
    module: str, config: Path, *, log: Path, environment: Mapping[str, str] = {}
) -> None:
    """Run ``python -m MODULE --config FILE``.

    Parameters
    ----------
    module
        The name of the module.
    config
        The configuration file.
    log
        The file to which its standard error is appended.
    environment
        Environment variables that are added to those of this process.

    Raises
    ------
    StudyError
        If the module ends with an exit code other than 0.
    """
    variables = {**os.environ, ENV_PARENT: str(os.getpid()), "TQDM_DISABLE": "1", **environment}
    with log.open("ab") as errors:
        process = subprocess.run(
            [sys.executable, "-m", module, "--config", str(config)],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            check=False,
        )
    if process.returncode:
        raise StudyError(f"{module} ended with exit code {process.returncode}; see {log}")
