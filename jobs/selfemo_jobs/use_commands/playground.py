"""``selfemo playground``: a page on this machine on which a model is tried."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
import threading
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.contract import ExitCode
from selfemo_api.text.control_characters import printable
from selfemo_jobs.errors import BadInput, StageError
from selfemo_jobs.use_commands.use_options import (
    add_allow_host_argument,
    add_model_arguments,
    engine_settings,
    other_model_options,
    port_number,
    reference_options,
    side_by_side,
    with_chosen_context,
)

if TYPE_CHECKING:
    from selfemo_api.model_description import ModelDescription
    from selfemo_jobs.models.model_location import ModelLocation
    from selfemo_jobs.playground.models import PlaygroundModel

HELP = "Open a local web page where a model recognizes emotions and replies."
#: The path of the report on the page's server.
REPORT_PATH = "/report"
#: With these, the report runs no script and reaches nothing, whoever could write the storage.
_REPORT_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_model_arguments(parser)
    parser.add_argument(
        "--compare",
        metavar="MODEL",
        help="the model to show next to it, or `none`. Default: generation 0 of its run",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="the report of the run. Default: the report in its storage",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        metavar="PORT",
        default=7860,
        help="the port on 127.0.0.1, or 0 for any free port",
    )
    add_allow_host_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, and return the exit code."""
    # read when the library is imported: nothing is sent anywhere
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from starlette.middleware import Middleware

    from selfemo_jobs.models.model_reference import locate_model
    from selfemo_jobs.playground.page import build_page, launch_options
    from selfemo_jobs.use_commands.request_checks import OwnPages

    _reach_this_machine_directly(os.environ)
    port = _free_port(arguments.port)
    location = locate_model(arguments.model, reference_options(arguments))
    models = _models(arguments, location)
    report = _report(arguments, location)
    page = build_page(models, report_path=REPORT_PATH if report is not None else None)
    try:
        app, url, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port,
            prevent_thread_lock=True,
            share=False,
            app_kwargs={"middleware": [Middleware(OwnPages, names=arguments.allow_host)]},
            **launch_options(),
        )
    except OSError:  # the text of the library's error is about its own options
        raise BadInput(_taken(port)) from None
    if report is not None:
        _serve_report(app, report)
    sys.stdout.write(f"{printable(url)}\n")
    sys.stdout.flush()
    try:
        threading.Event().wait()  # until Ctrl-C
    finally:
        page.close(verbose=False)
        for model in models:
            model.close()
    return ExitCode.OK


def _models(arguments: argparse.Namespace, location: ModelLocation) -> list[PlaygroundModel]:
    """Return the model, and the one beside it if there is one. Raises BadInput, Unavailable."""
    from selfemo_jobs.models.model_reference import fetch_located, resolve_model
    from selfemo_jobs.models.run_models import parse_run_model
    from selfemo_jobs.playground.models import PlaygroundModel

    model = with_chosen_context(arguments, fetch_located(location, reference_options(arguments)))
    description = model.description
    settings = engine_settings(arguments, description.decoding)
    alone = [PlaygroundModel(_name(description), *model, *settings)]
    # what the model's description says about its origin does not count: it may be a stranger's
    own = parse_run_model(location.uri)
    reference = arguments.compare or (own.baseline_uri if own is not None else None)
    if reference is None or arguments.compare == "none":
        return alone
    # generation 0 is in the storage of its run
    storage = None if arguments.compare else location.store.storage
    try:
        other = resolve_model(reference, other_model_options(arguments, storage))
    except StageError as error:
        if arguments.compare:
            raise
        sys.stderr.write(
            printable(f"selfemo playground: generation 0 is not shown: {error}") + "\n"
        )
        return alone
    name = "Generation 0" if not arguments.compare else _name(other.description)
    settings, others = side_by_side(
        settings, engine_settings(arguments, other.description.decoding)
    )
    return [
        PlaygroundModel(_name(description), *model, *settings),
        PlaygroundModel(name, *other, *others),
    ]


def _name(description: ModelDescription) -> str:
    """Return the name of a model on the page."""
    origin = description.origin
    return f"Generation {origin.generation}" if origin is not None else "Model"


def _report(arguments: argparse.Namespace, location: ModelLocation) -> bytes | None:
    """Return the report of the run, or None if there is none. Raises BadInput."""
    from selfemo_jobs.models.run_models import parse_run_model
    from selfemo_jobs.store import ObjectNotFound

    if arguments.report is not None:
        try:
            content: bytes = arguments.report.read_bytes()
        except OSError as error:
            raise BadInput(f"--report {arguments.report}: {error.strerror}") from None
        return content
    model = parse_run_model(location.uri)
    if model is None:
        return None
    try:
        return location.store.get(model.report_uri)
    except ObjectNotFound:
        return None
    except StageError as error:
        sys.stderr.write(printable(f"selfemo playground: the report is not shown: {error}") + "\n")
        return None


def _serve_report(app: object, report: bytes) -> None:
    """Add the report to the page's server."""
    from fastapi import FastAPI, Response

    if not isinstance(app, FastAPI):
        raise TypeError("the server of the page is not a FastAPI application")

    def respond() -> Response:
        return Response(report, media_type="text/html", headers=_REPORT_HEADERS)

    app.add_api_route(REPORT_PATH, respond, methods=["GET"])
    app.router.routes.insert(
        0, app.router.routes.pop()
    )  # before the page's own, which take any path


def _reach_this_machine_directly(environment: MutableMapping[str, str]) -> None:
    """Leave this machine out of what an HTTP proxy is used for: Gradio asks its own page."""
    names = ("no_proxy", "NO_PROXY")  # some libraries read one of them, and some the other one
    hosts = [host for name in names for host in environment.get(name, "").split(",") if host]
    if "*" in hosts:  # it turns all proxies off, but not with other names beside it
        return
    value = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
    environment.update(dict.fromkeys(names, value))


def _free_port(port: int) -> int:
    """Return a port on 127.0.0.1; 0 is any free one. Raises BadInput if another process has it."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the page's server does
        try:
            server.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BadInput(_taken(port)) from None
            raise BadInput(f"--port {port}: {error.strerror}") from None
        free: int = server.getsockname()[1]
    return free


def _taken(port: int) -> str:
    return (
        f"--port {port}: another process is using it: specify another port, or 0 for any free port"
    )
