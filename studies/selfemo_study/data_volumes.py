"""The data volumes of a study, and the dialogues in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.spec import DatasetSpec, Source
from selfemo_study.row_evolution import BASES_VOLUME, MODELS_VOLUME
from selfemo_study.study_config import StudyError
from selfemo_study.study_folders import StudyFolders

if TYPE_CHECKING:
    from selfemo_jobs.datasets.dialogue import Dialogue


@dataclass(frozen=True)
class DataVolumes:
    """The folder of each data volume."""

    folders: Mapping[str, Path]

    @classmethod
    def of(cls, volumes: Mapping[str, str], folders: StudyFolders) -> DataVolumes:
        """Return a study's data volumes and the harness's own volume of models.

        Parameters
        ----------
        volumes
            The folder of each volume of the study.
        folders
            The study's folders.

        Raises
        ------
        StudyError
            If a folder does not exist.
        """
        paths = {name: Path(path).expanduser().absolute() for name, path in volumes.items()}
        for name, path in paths.items():
            if not path.is_dir():
                raise StudyError(
                    f"data volume `{name}`: {path} does not exist: set it with --data {name}=FOLDER"
                )
        shared = {MODELS_VOLUME: folders.models, BASES_VOLUME: folders.base_models}
        return cls({**paths, **{name: folder.absolute() for name, folder in shared.items()}})

    @property
    def options(self) -> list[str]:
        """The options of the command `selfemo run`."""
        return [x for name, path in self.folders.items() for x in ("--data", f"{name}={path}")]

    @property
    def variable(self) -> str:
        """The value of the environment variable that stages read."""
        return ":".join(f"{name}={path}" for name, path in sorted(self.folders.items()))

    def local_uri(self, uri: str) -> str:
        """Return the `file://` URI of a `data://` URI, and any other URI as it is.

        Raises StudyError where the data volume is missing.
        """
        if not uri.startswith("data://"):
            return uri
        volume, slash, below = uri.removeprefix("data://").partition("/")
        return self.path(f"data://{volume}").as_uri() + slash + below

    def path(self, uri: str) -> Path:
        """Return the path of a `data://` or `file://` URI. Raises StudyError."""
        scheme, _, rest = uri.partition("://")
        volume, _, below = rest.partition("/")
        if scheme == "file":
            return Path(rest)
        if scheme != "data" or volume not in self.folders:
            raise StudyError(f"{uri}: its data volume is missing; there are: {self.options}")
        return self.folders[volume] / below


def load_dialogues(
    dataset: DatasetSpec, source: Source, volumes: DataVolumes, *, read_labels: bool
) -> list[Dialogue]:
    """Return the dialogues of a source, read as the product reads them.

    Parameters
    ----------
    dataset
        The label set, the columns and the map of labels.
    source
        The source.
    volumes
        The data volumes.
    read_labels
        Whether to read the labels of the dialogues.
    """
    from selfemo_jobs.datasets import load

    path = volumes.path(source.uri)
    dialogues: list[Dialogue] = load.load_dialogues(dataset, source, path, read_labels=read_labels)
    return dialogues
