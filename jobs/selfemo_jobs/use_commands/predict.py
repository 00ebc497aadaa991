"""``selfemo predict``: the emotions of each turn of dialogues, with probabilities."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from selfemo_api.contract import ExitCode
from selfemo_api.text.control_characters import visible
from selfemo_api.text.formatting import duration
from selfemo_jobs.errors import BadInput
from selfemo_jobs.use_commands.use_options import (
    add_input_arguments,
    add_model_arguments,
    engine_settings,
    open_model,
)

if TYPE_CHECKING:
    from selfemo_jobs.models.model_reference import ResolvedModel
    from selfemo_jobs.use_commands.prediction_outputs import OutputLayout
    from selfemo_jobs.use_commands.prediction_run import Progress
    from selfemo_jobs.use_commands.use_options import EngineSettings

HELP = "Predict the emotions of each turn in dialogues, with a probability for each label."

_FORMATS = ("table", "json", "jsonl", "csv", "parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_model_arguments(parser)
    add_input_arguments(parser)
    parser.add_argument(
        "--output",
        "-o",
        choices=_FORMATS,
        help="the output format. Default: inferred from the extension of --to; otherwise a table",
    )
    parser.add_argument(
        "--to",
        metavar="FILE",
        help="the file to write. If the command is interrupted, run it again to continue",
    )
    parser.add_argument("--no-probabilities", action="store_true", help="omit the probabilities")


def run(arguments: argparse.Namespace) -> int:
    """Predict the emotions of all turns, and return the exit code."""
    from selfemo_jobs.use_commands.prediction_inputs import open_input
    from selfemo_jobs.use_commands.prediction_outputs import OutputFormat, OutputLayout
    from selfemo_jobs.use_commands.prediction_run import (
        predict_to_file,
        predict_to_stream,
        target_turns,
    )
    from selfemo_jobs.use_commands.turn_predictor import TurnPredictor

    file = _output_file(arguments.to)
    kind = OutputFormat(output_format(arguments.output, file))
    with tempfile.TemporaryDirectory() as folder:
        dialogues = open_input(arguments, Path(folder))
        if file and file.exists() and any(file.samefile(path) for path in dialogues.paths):
            raise BadInput(f"--to {file} is also an input: choose another file")
        model = open_model(arguments)
        description = model.description
        engine = engine_settings(arguments, description.decoding)
        layout = OutputLayout(kind, description.labels, not arguments.no_probabilities)
        targets = target_turns(dialogues.dialogues(), description.context)
        with TurnPredictor(model, engine, probabilities=layout.probabilities) as predict:
            if file is None:
                with _standard_output(kind) as stream:
                    progress = predict_to_stream(targets, predict, stream, layout)
            else:
                request = _request(model, engine, layout, dialogues.digest)
                progress = predict_to_file(
                    targets,
                    predict,
                    file,
                    layout,
                    request,
                    report=_progress_line(arguments),
                )
        warnings = [*dialogues.warnings(), *predict.warnings()]
        _report(arguments, progress, predict.load_seconds, warnings)
    return ExitCode.OK


def output_format(output: str | None, file: Path | None) -> str:
    """Return the format of the result.

    Parameters
    ----------
    output
        The value of ``--output``. None: it follows from the name of the file.
    file
        The value of ``--to``. None: the result is printed, by default as a table.

    Raises
    ------
    BadInput
        If there is no such format for the file, or its name does not say which it has.

    Examples
    --------
    >>> output_format(None, None), output_format(None, Path("out.csv.gz"))
    ('table', 'csv')
    """
    if file is None:
        if output == "parquet":
            raise BadInput("-o parquet needs --to FILE: it cannot be printed")
        return output or "table"
    name = file.name.lower()
    if output == "parquet" and name.endswith(".gz"):
        raise BadInput(f"--to {file}: Parquet files are already compressed: omit .gz")
    if output is not None:
        return output
    ending = Path(name.removesuffix(".gz")).suffix.removeprefix(".")
    if ending not in _FORMATS[1:] or (ending == "parquet" and name.endswith(".gz")):
        raise BadInput(f"--to {file}: specify the format with -o ({', '.join(_FORMATS)})")
    return ending


def _output_file(name: str | None) -> Path | None:
    """Return the file of ``--to``. Raises BadInput if it cannot be written."""
    if name is None:
        return None
    file = Path(name).expanduser()
    if "://" in name:
        raise BadInput(f"--to {name}: must be a file on this machine")
    if file.is_dir():
        raise BadInput(f"--to {name} is a folder: specify a file in it")
    if not file.parent.is_dir():
        raise BadInput(f"--to {name}: the folder {file.parent} does not exist")
    return file


def _request(
    model: ResolvedModel, engine: EngineSettings, layout: OutputLayout, input_digest: str
) -> dict[str, Any]:
    """Return what the predictions follow from, by names for messages."""
    from selfemo_jobs.models.model_folder import model_sha256
    from selfemo_jobs.runtime.manifest import canonical_json
    from selfemo_jobs.store.hashing import sha256

    description = model.description.model_dump(mode="json", include={"labels", "prompts"})
    decoding = model.description.decoding
    description["maxTokens"] = decoding.max_tokens.recognizer
    description["multiLabel"] = decoding.multi_label
    return {
        "model": model_sha256(model.folder),
        "labels or prompts": sha256(canonical_json(description)),
        "input": input_digest,
        "context": model.description.context.model_dump(mode="json"),
        "engine": engine.engine,
        "arguments of the engine": engine.engine_args,
        "choice of probabilities": layout.probabilities,
    }


@contextmanager
def _standard_output(kind: str) -> Iterator[BinaryIO]:
    """Yield the stream of the result. A JSON document is printed whole, or not at all."""
    output = sys.stdout.buffer
    if kind != "json":
        yield output
        return
    with tempfile.TemporaryFile() as document:
        yield cast(BinaryIO, document)
        document.seek(0)
        shutil.copyfileobj(document, output)
        output.flush()


def _progress_line(arguments: argparse.Namespace) -> Callable[[Progress], None]:
    """Return a function that shows the progress in one line of the terminal."""

    def show(progress: Progress) -> None:
        sys.stderr.write(f"\r\x1b[K{progress.turns:,} turns{_rate(progress)}")
        sys.stderr.flush()

    return show if sys.stderr.isatty() and not arguments.quiet else lambda _: None


def _rate(progress: Progress) -> str:
    new = progress.turns - progress.resumed
    if not new or not progress.seconds:
        return ""
    rate = new / progress.seconds
    return f", {rate:,.0f} per second" if rate >= 10 else f", {rate:.2g} per second"


def _report(
    arguments: argparse.Namespace,
    progress: Progress,
    load_seconds: float,
    warnings: Sequence[str],
) -> None:
    """Print warnings, and the figures, to standard error."""
    if sys.stderr.isatty() and arguments.to and not arguments.quiet:
        sys.stderr.write("\r\x1b[K")  # the line of the progress
    for warning in warnings:
        sys.stderr.write(f"warning: {visible(warning)}\n")
    if arguments.quiet:
        return
    where = f"{arguments.to}: " if arguments.to else ""
    facts = [
        f"{progress.turns:,} turns from {progress.dialogues:,} dialogues in "
        f"{duration(progress.seconds)}{_rate(progress)}"
    ]
    if load_seconds:
        facts.append(f"the model was loaded in {duration(load_seconds)}")
    if progress.resumed:
        facts.append(f"{progress.resumed:,} turns were predicted by the interrupted command")
    sys.stderr.write(visible(f"{where}{'; '.join(facts)}") + "\n")
