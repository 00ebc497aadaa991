"""``python -m selfemo_operator``: the operator."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from selfemo_api.contract import ExitCode
from selfemo_api.text.json_logs import JsonLines
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.kube.request_rate import RequestRate
from selfemo_operator.controller.objects.settings import declared_settings, settings_from
from selfemo_operator.controller.pod_defaults import InvalidDefaults, with_defaults
from selfemo_operator.controller.process import Operator, connections


def main(**options: Any) -> None:
    """Reconcile EmotionEvolutions until stopped."""
    settings = settings_from(options)
    _configure_logging(settings.log_level, settings.log_format)
    try:
        settings = with_defaults(settings)
    except InvalidDefaults as error:
        logging.getLogger(__name__).critical("%s", error)
        sys.exit(ExitCode.BAD_INPUT)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    rate = RequestRate(settings.requests_per_second) if settings.requests_per_second else None
    operator = Operator(settings, KubeClient(connections(settings), rate=rate))
    sys.exit(operator.run(stop))


def _parameters() -> Iterator[inspect.Parameter]:
    """Yield a parameter for each setting that has an option; typer reads them."""
    for _, kind, default, setting in declared_settings():
        if not setting.flag:
            continue
        option = typer.Option(
            help=" ".join(filter(None, (setting.help, setting.reason))),
            min=setting.minimum,
            max=setting.maximum,
            envvar=setting.env or None,
        )
        several, required = isinstance(default, tuple), default is dataclasses.MISSING
        yield inspect.Parameter(
            setting.parameter,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else default,
            annotation=Annotated[list[str] if several else kind, option],
        )


main.__signature__ = inspect.Signature(list(_parameters()))  # type: ignore[attr-defined]


def _configure_logging(level: str, format_name: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if format_name == "json":
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("kopf").setLevel(
        logging.CRITICAL
    )  # the watch that runs it reports its errors


if __name__ == "__main__":
    typer.run(main)
