"""``selfemo export``: copies a model to a folder, to S3 or to the hub, or converts it to GGUF."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.contract import ExitCode
from selfemo_api.local_runs import absolute_uri
from selfemo_api.text.control_characters import json_text, visible
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.gguf_conversion import OUT_TYPES
from selfemo_jobs.runtime.command_line import add_output_option
from selfemo_jobs.use_commands.s3_options import add_s3_arguments, s3_storage
from selfemo_jobs.use_commands.use_options import (
    add_model_argument,
    add_reference_arguments,
    reference_options,
)

if TYPE_CHECKING:
    from selfemo_jobs.models.model_copy import CopiedModel
    from selfemo_jobs.models.model_reference import ReferenceOptions, ResolvedModel
    from selfemo_jobs.store import Store

HELP = "Copy a model with its description and model card to a folder, S3 or the Hugging Face Hub."

_SAFETENSORS, _GGUF = "safetensors", "gguf"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_model_argument(parser)
    parser.add_argument(
        "to",
        metavar="TO",
        help="the destination: a folder, s3://bucket/prefix or hf://owner/name",
    )
    parser.add_argument(
        "--format",
        choices=[_SAFETENSORS, _GGUF],
        default=_SAFETENSORS,
        help="the format of the weights. gguf is one file for llama.cpp",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace another model at the destination"
    )
    parser.add_argument(
        "--private", action="store_true", help="make a new repository on the Hub private"
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="the license in the model card, as a Hub identifier, for example apache-2.0. "
        "Default: the license of the base model, if known",
    )
    add_reference_arguments(parser)
    parser.add_argument(
        "--converter",
        metavar="FILE",
        help="llama.cpp's convert_hf_to_gguf.py, for --format gguf. Default: the one on the PATH",
    )
    parser.add_argument(
        "--outtype",
        choices=OUT_TYPES,
        default="auto",
        help="the data type of a GGUF file. auto keeps the model's data type",
    )
    add_s3_arguments(parser)
    add_output_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export the model, print what was written, and return the exit code."""
    from selfemo_jobs.models.model_reference import fetch_located, locate_model

    target = _target_uri(arguments.to)
    _check_options(arguments, target)
    options = reference_options(arguments, s3_storage(arguments))
    location = locate_model(arguments.model, options)
    model = fetch_located(location, options)
    if arguments.license is not None:
        described = model.description.model_copy(update={"license": arguments.license})
        model = model._replace(description=described)
    if arguments.format == _GGUF:
        copied = _export_gguf(arguments, model, target, _store(options, location.store))
    else:
        copied = _export(arguments, model, target, _store(options, location.store))
    _print(arguments, model, copied)
    return ExitCode.OK


def _target_uri(text: str) -> str:
    """Return the URI of the target, which is a URI or a path on this machine."""
    if "://" in text:
        return absolute_uri(text).rstrip("/")
    return Path(text).expanduser().absolute().as_uri()


def _check_options(arguments: argparse.Namespace, target: str) -> None:
    """Check the options before anything is copied. Raises BadInput."""
    if not target.startswith(("file://", "data://", "s3://", "hf://")):
        raise BadInput(
            f"{target}: the target must be a folder, s3://bucket/prefix or hf://owner/name"
        )
    if arguments.private and not target.startswith("hf://"):
        raise BadInput("--private requires a target on the Hub: hf://owner/name")
    if arguments.license is not None and not _LICENSE.fullmatch(arguments.license):
        raise BadInput(
            f"--license {arguments.license}: must be a license identifier of the Hub, for "
            "example mit"
        )
    if arguments.format == _GGUF:
        from selfemo_jobs.models.gguf_conversion import find_converter

        find_converter(arguments.converter)
    elif arguments.converter is not None or arguments.outtype != "auto":
        raise BadInput("--converter and --outtype require --format gguf")


def _store(options: ReferenceOptions, source: Store) -> Store:
    """Return the store with which the target is written: by the options, or as the source."""
    from selfemo_jobs.store import open_store

    if options.storage is None:
        return source
    return open_store(options.storage)


def _export(
    arguments: argparse.Namespace, model: ResolvedModel, target: str, store: Store
) -> CopiedModel:
    from selfemo_jobs.models.model_copy import copy_model

    return copy_model(
        model.folder,
        target,
        model.description,
        store=store,
        overwrite=arguments.overwrite,
        private=arguments.private,
    )


def _export_gguf(
    arguments: argparse.Namespace, model: ResolvedModel, target: str, store: Store
) -> CopiedModel:
    """Convert a model, and copy the file."""
    from selfemo_jobs.models.card_metadata import model_name
    from selfemo_jobs.models.gguf_conversion import convert_to_gguf, find_converter
    from selfemo_jobs.models.model_copy import copy_files
    from selfemo_jobs.store.hashing import file_sha256

    ending = "" if arguments.outtype == "auto" else f"-{arguments.outtype}"
    name = f"{model_name(model.description)}{ending}.gguf"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        convert_to_gguf(model.folder, file, find_converter(arguments.converter), arguments.outtype)
        hashes = {name: file_sha256(file)}
        description = model.description.model_copy(update={"weights_sha256": hashes})
        return copy_files(
            {name: file},
            target,
            description,
            store=store,
            overwrite=arguments.overwrite,
            private=arguments.private,
        )


def _print(arguments: argparse.Namespace, model: ResolvedModel, copied: CopiedModel) -> None:
    """Print what was written."""
    scores = model.description.scores
    if arguments.output == "json":
        result = {
            "uri": copied.uri,
            "files": copied.files,
            "bytes": copied.size,
            "written": copied.written,
            "weightedF1": scores[0].weighted_f1 if scores else None,
        }
        sys.stdout.write(json_text(result) + "\n")
        return
    if copied.written == 0:
        sys.stdout.write(f"{visible(copied.uri)} already contains this model\n")
        return
    figures = f", weighted F1 {scores[0].weighted_f1:.3f}" if scores else ""
    written = f"{copied.files} files, {_size(copied.size)}{figures}"
    sys.stdout.write(visible(f"{copied.uri}: {written}") + "\n")


def _size(size: int) -> str:
    """Return a size in bytes as text for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
