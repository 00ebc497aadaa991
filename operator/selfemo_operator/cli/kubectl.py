"""``kubectl selfemo``: watches and controls an evolution on a cluster.

It reads the same kubeconfig as kubectl. The user needs the rights to edit EmotionEvolutions.
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

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.error_messages import problems_of
from selfemo_api.stages import Stage
from selfemo_operator.cli import output_format, watch
from selfemo_operator.cli.exit_codes import exit_codes_help
from selfemo_operator.cli.report import write_report
from selfemo_operator.cli.run_options import RunRequest
from selfemo_operator.cli.terminal.evolution_view import StageProgress
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.local.state import RunnerError

app = typer.Typer(
    name="kubectl selfemo",
    help="Watch and control EmotionEvolutions on a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

#: Seconds between two reads of an evolution. A stage takes minutes: more would only be load.
POLL_SECONDS = 2.0
#: Seconds to wait for an answer, which takes milliseconds. After them, the API server counts as
#: unavailable.
POLL_TIMEOUT = 10.0

Name = Annotated[str, typer.Argument(help="The evolution's name.", show_default=False)]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The evolution's namespace.")]


@app.command("watch", epilog=exit_codes_help("kubectl selfemo watch"))
def watch_command(
    name: Name,
    namespace: Namespace = "default",
    once: Annotated[bool, typer.Option("--once", help="Print the present state and exit.")] = False,
) -> None:
    """Follow an evolution until it ends.

    Where the output is not a terminal, each change is printed as one line.
    """
    source = ClusterSource(namespace, name)
    console = output_format.console()
    raise typer.Exit(watch.follow(source, console, once=once, poll_seconds=POLL_SECONDS))


@app.command(epilog=exit_codes_help("kubectl selfemo logs"))
def logs(
    name: Name,
    namespace: Namespace = "default",
    stage: Annotated[
        Stage | None, typer.Option(help="The stage. Default: the current stage.")
    ] = None,
    generation: Annotated[
        int | None, typer.Option(help="The generation. Default: the current generation.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the pods end.")
    ] = False,
) -> None:
    """Print the logs of a stage's pods, through kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise RunnerError("kubectl is not on the PATH: install it, since it reads the logs")
    status = _get_evolution(KubeClient(connections=1), namespace, name).status
    selected_stage = stage or status.stage or Stage.EVALUATE
    number = status.generation if generation is None else generation
    selector = (
        f"{names.LABEL_EVOLUTION}={name},{names.LABEL_COMPONENT}={selected_stage.slug},"
        f"{names.LABEL_GENERATION}={number:03d}"
    )
    command = [kubectl, "logs", "--namespace", namespace, "--selector", selector]
    command += ["--prefix", "--tail=-1", "--max-log-requests=64"]
    command += ["--follow"] if follow else []
    os.execv(kubectl, command)  # noqa: S606 - no shell


@app.command(epilog=exit_codes_help("kubectl selfemo suspend"))
def suspend(name: Name, namespace: Namespace = "default") -> None:
    """Suspend an evolution at once. Finished work is kept."""
    _set_suspend(name, namespace, suspend=True)


@app.command(epilog=exit_codes_help("kubectl selfemo resume"))
def resume(name: Name, namespace: Namespace = "default") -> None:
    """Resume a suspended evolution."""
    _set_suspend(name, namespace, suspend=False)


@app.command("report", epilog=exit_codes_help("kubectl selfemo report"))
def report_command(
    name: Name,
    namespace: Namespace = "default",
    to: Annotated[Path, typer.Option("--to", help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Write the report of a run: one HTML page with all its results.

    The page is made on this machine, which reads the storage with your own credentials.
    """
    evolution = _get_evolution(KubeClient(connections=1), namespace, name)
    with tempfile.TemporaryDirectory() as folder:
        request = RunRequest(evolution, {}, Path(folder), evolution.metadata.uid[:8])
        Console().print(str(write_report(request, to)))


class ClusterSource:
    """An evolution on a cluster. A failed read returns the last state with a note.

    Parameters
    ----------
    namespace, name
        The namespace and the name of the evolution.
    """

    def __init__(self, namespace: str, name: str) -> None:
        self._kube = KubeClient(connections=1).with_timeout(POLL_TIMEOUT)
        self._namespace, self._name = namespace, name
        self._evolution: EmotionEvolution | None = None
        #: The note of the present outage. The error differs between tries (reset, refused, timed
        #: out). Only the first is kept: otherwise each would count as a change.
        self._note = ""

    def read(self) -> tuple[EmotionEvolution, StageProgress]:
        """Return the resource, or the last one that was read with a note about the outage.

        Raises
        ------
        ApiError
            If the first read fails, or the API server refuses the request.
        RunnerError
            If there is no such evolution.
        """
        try:
            self._evolution = _get_evolution(self._kube, self._namespace, self._name)
        except ApiError as error:
            if self._evolution is None or (400 <= error.status < 500 and error.status != 429):
                raise
            self._note = self._note or f"The API server does not respond; retrying. ({error})"
            return self._evolution, StageProgress(note=self._note)
        self._note = ""
        return self._evolution, StageProgress()


def _get_evolution(kube: KubeClient, namespace: str, name: str) -> EmotionEvolution:
    """Return an evolution. Raises RunnerError if it does not exist or cannot be parsed."""
    try:
        return EmotionEvolution.model_validate(kube.get(names.evolution_path((namespace, name))))
    except ApiError as error:
        if error.status == 404:
            raise RunnerError(f"there is no evolution {name} in namespace {namespace}") from None
        raise
    except ValidationError as error:
        problems = "; ".join(str(problem) for problem in problems_of(error))
        raise RunnerError(
            f"{namespace}/{name} cannot be read, or was written for another version of this "
            f"command: {problems}"
        ) from None


def _set_suspend(name: str, namespace: str, *, suspend: bool) -> None:
    """Set ``spec.suspend`` of an evolution, and print that."""
    body: dict[str, Any] = {"spec": {"suspend": suspend}}
    KubeClient(connections=1).patch(names.evolution_path((namespace, name)), body)
    Console().print(f"{namespace}/{name} is {'suspended' if suspend else 'resumed'}")


def main() -> None:
    """Run the command. An error is one line, with an exit code."""
    try:
        app()
    except ApiError as error:
        sys.stderr.write(f"kubectl selfemo: {error}\n")
        sys.exit(ExitCode.BAD_INPUT if 400 <= error.status < 500 else ExitCode.UNAVAILABLE)
    except RunnerError as error:
        sys.stderr.write(f"kubectl selfemo: {error}\n")
        sys.exit(error.exit_code)
