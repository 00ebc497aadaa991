"""``python -m selfemo_jobs.base_models tiny|prepare|warm-start``: what ``selfemo model`` starts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.contract import ExitCode
from selfemo_api.spec import Context, DataFormat, Source, View
from selfemo_jobs.errors import BadInput, StageError
from selfemo_jobs.runtime.logging_setup import configure_logging

if TYPE_CHECKING:
    from selfemo_jobs.base_models.warm_start import WarmStart
    from selfemo_jobs.datasets.dialogue import Dialogue


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    top = argparse.ArgumentParser(prog="selfemo model", description="Make a base model.")
    commands = top.add_subparsers(dest="command", required=True)
    tiny = commands.add_parser("tiny", help="a one-million-parameter model for tests")
    tiny.add_argument("--output", type=Path, required=True)
    tiny.add_argument("--seed", type=int, default=0)
    prepare = commands.add_parser("prepare", help="a small real model without a hub")
    prepare.add_argument("name", choices=["smollm2"])
    prepare.add_argument("--output", type=Path, required=True)
    prepare.add_argument("--layers", type=int, default=30, help="keep only the first N layers")
    prepare.add_argument("--gguf", type=Path, help="the package's file, where it is at hand")
    warm = commands.add_parser("warm-start", help="supervised training on a labeled share")
    warm.add_argument("--model", type=Path, required=True)
    warm.add_argument("--output", type=Path, required=True)
    warm.add_argument("--source", type=Path, required=True)
    warm.add_argument("--format", choices=[f.value for f in DataFormat], required=True)
    warm.add_argument("--labels", required=True, help="comma-separated")
    share = warm.add_mutually_exclusive_group(required=True)
    share.add_argument("--share", type=float, help="of the dialogues, from the first")
    share.add_argument("--dialogues", type=int, help="this many of the first dialogues")
    warm.add_argument("--prompts", default="compact-v1")
    warm.add_argument("--past", type=int, default=1, help="turns of context")
    warm.add_argument(
        "--view",
        action="append",
        default=[],
        metavar="PAST,FUTURE",
        help="teach the recognizer with so many turns before and after; again for each view",
    )
    warm.add_argument("--steps", type=int, default=120)
    warm.add_argument("--batch-size", type=int, default=24)
    warm.add_argument("--learning-rate", type=float, default=3e-4)
    warm.add_argument("--max-prompt-tokens", type=int, default=256)
    warm.add_argument("--responder-share", type=float, default=0.25)
    warm.add_argument("--freeze-embeddings", action="store_true")
    warm.add_argument("--train-layers", type=int, metavar="N", help="train only the last N layers")
    warm.add_argument(
        "--dev",
        type=Path,
        metavar="FILE",
        help="say the trained model's weighted F1 on this file, of the same format",
    )
    warm.add_argument("--seed", type=int, default=0)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parser().parse_args(argv)
    configure_logging("Model")
    try:
        _COMMANDS[arguments.command](arguments)
    except StageError as error:
        sys.stderr.write(f"selfemo model {arguments.command}: {error}\n")
        return error.exit_code
    return ExitCode.OK


def _tiny(arguments: argparse.Namespace) -> None:
    from selfemo_jobs.base_models.tiny import make_tiny

    make_tiny(arguments.output, arguments.seed)
    _say(output=str(arguments.output))


def _prepare(arguments: argparse.Namespace) -> None:
    from selfemo_jobs.base_models.smollm2 import prepare_smollm2

    prepare_smollm2(arguments.output, arguments.layers, arguments.gguf)
    _say(output=str(arguments.output), layers=arguments.layers)


def _warm_start(arguments: argparse.Namespace) -> None:
    import torch

    from selfemo_jobs.base_models.warm_start import examples_of, share_of, warm_start
    from selfemo_jobs.models.fetch import load_model, load_tokenizer
    from selfemo_jobs.models.model_folder import check_model_folder, save_model
    from selfemo_jobs.prompts.sets import load_prompt_set
    from selfemo_jobs.stages.evaluate.measure import measure

    labels = [label.strip() for label in arguments.labels.split(",")]
    check_model_folder(arguments.model, str(arguments.model))
    if arguments.share is not None and not 0.0 < arguments.share <= 1.0:
        raise BadInput(f"--share {arguments.share}: must be above 0, at most 1")
    if arguments.dialogues is not None and arguments.dialogues < 1:
        raise BadInput(f"--dialogues {arguments.dialogues}: must be 1 or more")
    dialogues = _dialogues(arguments, "source", labels)
    dev = _dialogues(arguments, "dev", labels) if arguments.dev else []
    count = arguments.dialogues or share_of(len(dialogues), arguments.share)
    settings = _settings(arguments)
    model, tokenizer = load_model(arguments.model, torch.float32), load_tokenizer(arguments.model)
    prompts = load_prompt_set(arguments.prompts)
    asks, says = examples_of(dialogues[:count], labels, prompts, tokenizer, settings)
    loss = warm_start(model, tokenizer, asks, says, settings)
    save_model(model, tokenizer, arguments.output)
    figures: dict[str, object] = {}
    if arguments.dev:
        found = measure(
            arguments.output,
            "dev",
            dev,
            labels,
            context=Context(past=settings.past),
            prompts=arguments.prompts,
            max_prompt_tokens=settings.max_prompt_tokens,
        )
        between = [found.weighted_f1_low, found.weighted_f1_high]
        figures = {"devWeightedF1": found.weighted_f1, "devInterval": between}
    _say(
        output=str(arguments.output),
        loss=round(loss, 4),
        dialogues=count,
        utterances=len(asks) // max(1, len(settings.views)),
        **figures,
        hint=f"give self-play `firstDialogue: {count}`: these dialogues' labels have been seen",
    )


def _settings(arguments: argparse.Namespace) -> WarmStart:
    from selfemo_jobs.base_models.warm_start import WarmStart

    return WarmStart(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        past=arguments.past,
        views=tuple(map(_view, arguments.view)),
        max_prompt_tokens=arguments.max_prompt_tokens,
        responder_share=arguments.responder_share,
        freeze_embeddings=arguments.freeze_embeddings,
        train_layers=arguments.train_layers,
        seed=arguments.seed,
    )


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
        use_labels=True,
    )
    found = load_source(source, labels, file, read_labels=True)
    if not any(turn.labels for dialogue in found for turn in dialogue.turns):
        raise BadInput(f"--{option} {file} has no labeled utterance")
    return found


def _view(text: str) -> View:
    """Return a view from its two numbers of turns. Raises BadInput."""
    try:
        past, future = map(int, text.split(","))
        return View(past=past, future=future)
    except ValueError:  # pydantic's is one, too
        raise BadInput(f"--view {text}: must be two whole numbers from 0 to 64, as 1,0") from None


def _say(**figures: object) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")


_COMMANDS = {"tiny": _tiny, "prepare": _prepare, "warm-start": _warm_start}

if __name__ == "__main__":
    sys.exit(main())
