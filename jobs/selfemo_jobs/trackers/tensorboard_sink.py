"""TensorBoard: one event file for each generation, which is written as a whole.

The files go to ``<run>/tensorboard`` in the storage, or to the folder of the environment variable
``SELFEMO_TENSORBOARD_DIR``. A file that exists is never written again.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from selfemo_jobs.store.local_files import write_file
from selfemo_jobs.trackers.points import TrackedGeneration, TrackedRun
from selfemo_jobs.trackers.sink import SinkFiles

ENV_FOLDER = "SELFEMO_TENSORBOARD_DIR"
"""The folder of the event files. Unset: they are in the storage, below the folder of the run."""


def make_sink() -> TensorBoardSink:
    """Return the sink of TensorBoard."""
    return TensorBoardSink()


def event_file_name(generation: int) -> str:
    """Return the name of a generation's file. TensorBoard reads the files in their order.

    Parameters
    ----------
    generation
        The number of the generation.

    Examples
    --------
    >>> event_file_name(3)
    'events.out.tfevents.0000000003.selfemo'
    """
    return f"events.out.tfevents.{generation:010d}.selfemo"


class TensorBoardSink:
    """Writes event files with TensorBoard's own types. TensorFlow is not needed."""

    def open(self, run: TrackedRun, files: SinkFiles) -> None:
        """Set the folder. The parameters are those of the protocol."""
        folder = os.environ.get(ENV_FOLDER)
        self._folder = Path(folder).expanduser() / run.id if folder else files.folder
        self._run = run

    def log(self, generation: TrackedGeneration) -> int:
        """Write the file of a generation that has none. The parameters are the protocol's."""
        path = self._folder / event_file_name(generation.generation)
        if path.exists():
            return 0
        self._folder.mkdir(parents=True, exist_ok=True)
        write_file(path, self._encode(generation))
        return len(generation.points)

    def finish(self) -> None:
        """Do nothing: each file is complete. TensorBoard stores no other files."""

    def _encode(self, generation: TrackedGeneration) -> bytes:
        """Return the bytes of the event file of a generation."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        writer = RecordWriter(buffer)

        def write(**fields: Any) -> None:
            event = Event(wall_time=generation.time, **fields)
            writer.write(event.SerializeToString(deterministic=True))

        write(file_version="brain.Event:2")
        if generation.generation == self._run.generations[-1].generation:
            write(step=generation.generation, summary=_settings_summary(self._run))
        for point in generation.points:
            write(step=point.step, summary=_scalar(point.name, point.value))
        return buffer.getvalue()


def _scalar(name: str, value: float) -> Any:
    """Return the summary of one value."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value)])


def _settings_summary(run: TrackedRun) -> Any:
    """Return the settings and tags as a table in Markdown, which TensorBoard shows as text."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    cells = {**run.tags, **run.settings}
    lines = ["| setting | value |", "| --- | --- |"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in sorted(cells.items())]
    tensor = TensorProto(dtype=DT_STRING, string_val=["\n".join(lines).encode()])
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary(value=[Summary.Value(tag="settings", tensor=tensor, metadata=metadata)])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", "<br>")
