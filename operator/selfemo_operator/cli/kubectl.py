"""``kubectl selfemo``: people's side of an evolution on a cluster.

It reads the kubeconfig that kubectl reads, and needs the rights of a person who may edit
EmotionEvolutions.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from selfemo_api.api_model import first_problem
from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import Stage
from selfemo_operator.cli import output_format, report, watch
from selfemo_operator.cli.run_options import Request
from selfemo_operator.cli.terminal.picture import Activity
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.local.state import RunnerError

app = typer.Typer(
    name="kubectl selfemo",
    help="Watch and steer EmotionEvolutions on a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

#: A stage takes minutes: twice a second would only be load.
POLL_SECONDS = 2.0
#: One answer takes milliseconds; a server that hangs is said to be away.
POLL_TIMEOUT = 10.0

Name = Annotated[str, typer.Argument(help="The evolution.", show_default=False)]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")]


@app.command("watch")
def watch_command(
    name: Name,
    namespace: Namespace = "default",
    once: Annotated[bool, typer.Option("--once", help="Show it once and stop.")] = False,
) -> None:
    """Follow an evolution to its end; the exit code says how it ended.

    0 well, 1 failed or collapsed, 2 bad input, 130 by Ctrl-C (the evolution goes on). Where the
    output is no terminal: a line for each change.
    """
    source = ClusterSource(namespace, name)
    raise typer.Exit(
        watch.follow(source, output_format.console(), once=once, poll_seconds=POLL_SECONDS)
    )


@app.command()
def logs(
    name: Name,
    namespace: Namespace = "default",
    stage: Annotated[Stage | None, typer.Option(help="Unset: the one under way.")] = None,
    generation: Annotated[int | None, typer.Option(help="Unset: the one under way.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
) -> None:
    """Show the logs of a stage's pods, through kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise RunnerError("kubectl is not on the PATH: logs are read through it")
    status = _get(KubeClient(connections=1), namespace, name).status
    asked = stage or status.stage or Stage.EVALUATE
    number = status.generation if generation is None else generation
    selector = (
        f"{names.LABEL_EVOLUTION}={name},{names.LABEL_COMPONENT}={asked.slug},"
        f"{names.LABEL_GENERATION}={number:03d}"
    )
    words = [kubectl, "logs", "--namespace", namespace, "--selector", selector]
    words += ["--prefix", "--tail=-1", "--max-log-requests=64", *(["--follow"] if follow else [])]
    os.execv(kubectl, words)  # noqa: S606 - no shell


@app.command()
def suspend(name: Name, namespace: Namespace = "default") -> None:
    """Stop at once; nothing that is done is lost."""
    _set_suspend(name, namespace, suspend=True)


@app.command()
def resume(name: Name, namespace: Namespace = "default") -> None:
    """Go on after a suspension."""
    _set_suspend(name, namespace, suspend=False)


@app.command("report")
def report_command(
    name: Name,
    namespace: Namespace = "default",
    to: Annotated[Path, typer.Option("--to", help="Where the page goes.")] = Path("report.html"),
) -> None:
    """Write the report's page. The storage is read from here, with your own credentials."""
    evolution = _get(KubeClient(connections=1), namespace, name)
    with tempfile.TemporaryDirectory() as folder:
        request = Request(evolution, {}, Path(folder), evolution.metadata.uid[:8])
        Console().print(str(report.write(request, to)))


class ClusterSource:
    """An evolution on a cluster; an API server that is away for a while is waited for."""

    def __init__(self, namespace: str, name: str) -> None:
        self._kube = KubeClient(connections=1).within(POLL_TIMEOUT)
        self._namespace, self._name = namespace, name
        self._seen: EmotionEvolution | None = None
        #: Of an outage under way. The errors differ from try to try (reset, refused, timed out):
        #: the first stands for all, or each would be a change.
        self._note = ""

    def look(self) -> tuple[EmotionEvolution, Activity]:
        """Return the resource, or the last that was seen with a note on why."""
        try:
            self._seen = _get(self._kube, self._namespace, self._name)
        except ApiError as error:
            if self._seen is None or (400 <= error.status < 500 and error.status != 429):
                raise
            self._note = self._note or f"The API server does not answer; trying again. ({error})"
            return self._seen, Activity(note=self._note)
        self._note = ""
        return self._seen, Activity()


def _get(kube: KubeClient, namespace: str, name: str) -> EmotionEvolution:
    try:
        return EmotionEvolution.model_validate(kube.get(names.evolution_path((namespace, name))))
    except ApiError as error:
        if error.status == 404:
            raise RunnerError(f"there is no evolution {name} in namespace {namespace}") from None
        raise
    except ValidationError as error:
        field, message = first_problem(error)
        raise RunnerError(
            f"{namespace}/{name} is of another version than this command: {field}: {message}"
        ) from None


def _set_suspend(name: str, namespace: str, *, suspend: bool) -> None:
    body: dict[str, Any] = {"spec": {"suspend": suspend}}
    KubeClient(connections=1).merge(names.evolution_path((namespace, name)), body)
    Console().print(f"{namespace}/{name} {'is suspended' if suspend else 'goes on'}")


def main() -> None:
    """Run the command; errors are one line, with an exit code."""
    try:
        app()
    except ApiError as error:
        sys.stderr.write(f"kubectl selfemo: {error}\n")
        sys.exit(ExitCode.BAD_INPUT if 400 <= error.status < 500 else ExitCode.UNAVAILABLE)
    except RunnerError as error:
        sys.stderr.write(f"kubectl selfemo: {error}\n")
        sys.exit(error.exit_code)
