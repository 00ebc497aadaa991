"""``kubectl selfemo``: watches and controls an evolution on a cluster.

It reads the same kubeconfig as kubectl, and takes the same options for the cluster and the
namespace. The user needs the rights to edit EmotionEvolutions.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.error_messages import problems_of
from selfemo_api.stages import Stage
from selfemo_api.text.control_characters import json_text
from selfemo_operator.cli import output_format, serve_manifests, watch
from selfemo_operator.cli.command import Quiet, Verbose, application, begin_command, command
from selfemo_operator.cli.entry_point import run_application
from selfemo_operator.cli.kube_access import Access
from selfemo_operator.cli.output_format import columns, print_line
from selfemo_operator.cli.parameters import Output, OutputOption, Version
from selfemo_operator.cli.report import write_report
from selfemo_operator.cli.run_options import RunRequest
from selfemo_operator.cli.runs.run_list import run_table
from selfemo_operator.cli.runs.summary import run_summary, status_rows
from selfemo_operator.cli.serve_pod import evaluation_template
from selfemo_operator.cli.terminal.evolution_view import StageProgress
from selfemo_operator.controller.objects import names
from selfemo_operator.local.state import RunnerError

if TYPE_CHECKING:
    from selfemo_operator.controller.kube.client import KubeClient

app = application("kubectl selfemo", "Watch and control EmotionEvolutions on a cluster.")

#: Seconds between two reads of an evolution. A stage takes minutes: more would only be load.
POLL_SECONDS = 2.0
#: The pods whose logs are read at the same time: kubectl refuses more than this number, and an
#: evolution has at most as many shards and nodes (a bound of the API).
_MOST_PODS = 1024
#: Evolutions in one page of a list.
_PAGE = 250
_PROGRAM = "kubectl selfemo"

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The evolution's name.", show_default=False)
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="The namespace. Default: the context's namespace."),
]
Context = Annotated[
    str | None,
    typer.Option("--context", help="The kubeconfig context. Default: the current context."),
]
Kubeconfig = Annotated[
    str | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        help="The kubeconfig file. Default: KUBECONFIG or ~/.kube/config.",
    ),
]
_ACCESS = {"namespace": Namespace, "context": Context, "kubeconfig": Kubeconfig}


def kubectl_command(name: str) -> Callable[[Callable[..., None]], None]:
    """Return a decorator that adds a command with the options for the cluster and the namespace.

    Parameters
    ----------
    name
        The name of the command.
    """

    def add(function: Callable[..., None]) -> None:
        signature = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        def run(
            *, namespace: str | None, context: str | None, kubeconfig: str | None, **values: Any
        ) -> None:
            function(access=Access(namespace, context, kubeconfig), **values)

        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [p.replace(kind=keyword) for n, p in signature.parameters.items() if n != "access"]
        shared = [
            inspect.Parameter(n, keyword, default=None, annotation=annotation)
            for n, annotation in _ACCESS.items()
        ]
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *shared]
        )
        command(app, name, "Commands", program=_PROGRAM)(run)

    return add


@app.callback()
def kubectl_selfemo(
    version_flag: Version = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Remember the options of the program, which hold for each of its commands."""
    del version_flag
    begin_command(_PROGRAM, quiet=quiet, verbose=verbose)


@kubectl_command("list")
def list_command(
    access: Access,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="List evolutions in all namespaces.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the evolutions in a namespace."""
    kube = access.connect()
    namespace = None if all_namespaces else access.namespace
    with access.errors(kube):
        objects = list(_objects(kube, namespace))
    summaries = []
    for content in objects:
        try:
            summaries.append(run_summary(EmotionEvolution.model_validate(content)))
        except ValidationError:
            metadata = content["metadata"]
            note = f"{metadata['namespace']}/{metadata['name']} cannot be read by this version"
            print_line(f"warning: {note}", stderr=True)
    if output is Output.JSON:
        sys.stdout.write(json_text(summaries) + "\n")
    elif not summaries:
        place = f"in namespace {namespace}" if namespace else "in any namespace"
        print_line(f"no evolutions {place}", stderr=True)
    else:
        for line in run_table(summaries):
            print_line(line)


def _objects(kube: KubeClient, namespace: str | None) -> list[dict[str, Any]]:
    """Return the evolutions of a namespace as objects. Raises ApiError."""
    objects: list[dict[str, Any]] = []
    query = {"limit": str(_PAGE)}
    while True:
        page = kube.get(names.evolutions_path(namespace), query)
        objects += page.get("items", [])
        token = page.get("metadata", {}).get("continue")
        if not token:
            return objects
        query = {"limit": str(_PAGE), "continue": token}


@kubectl_command("status")
def status_command(access: Access, name: Name, output: OutputOption = Output.TABLE) -> None:
    """Print the state of one evolution."""
    summary = run_summary(get_evolution(access.connect(), access, name))
    if output is Output.JSON:
        sys.stdout.write(json_text(summary) + "\n")
        return
    for line in columns(status_rows(summary)):
        print_line(line)


@kubectl_command("watch")
def watch_command(
    access: Access,
    name: Name,
    once: Annotated[bool, typer.Option("--once", help="Print the current state and exit.")] = False,
) -> None:
    """Follow an evolution until it ends.

    If the output is not a terminal, each change is printed as one line.
    """
    source = ClusterSource(access, name)
    console = output_format.console()
    raise typer.Exit(watch.follow(source, console, once=once, poll_seconds=POLL_SECONDS))


@kubectl_command("logs")
def logs(
    access: Access,
    name: Name,
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
    """Print the logs of a stage's pods, using kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise RunnerError("kubectl is not on the PATH: install it to read the logs")
    status = get_evolution(access.connect(), access, name).status
    selected_stage = stage or status.stage or Stage.EVALUATE
    number = status.generation if generation is None else generation
    selector = (
        f"{names.LABEL_EVOLUTION}={name},{names.LABEL_COMPONENT}={selected_stage.slug},"
        f"{names.LABEL_GENERATION}={number:03d}"
    )
    arguments = [kubectl, "logs", *access.options, "--selector", selector]
    # a pod that waits has no log: print those of the others all the same
    arguments += ["--prefix", "--tail=-1", f"--max-log-requests={_MOST_PODS}", "--ignore-errors"]
    arguments += ["--follow"] if follow else []
    os.execv(kubectl, arguments)  # noqa: S606 - no shell


@kubectl_command("suspend")
def suspend(access: Access, name: Name, output: OutputOption = Output.TABLE) -> None:
    """Suspend an evolution immediately. Finished work is kept."""
    _set_suspend(access, name, suspend=True, as_json=output is Output.JSON)


@kubectl_command("resume")
def resume(access: Access, name: Name, output: OutputOption = Output.TABLE) -> None:
    """Resume a suspended evolution."""
    _set_suspend(access, name, suspend=False, as_json=output is Output.JSON)


@kubectl_command("report")
def report_command(
    access: Access,
    name: Name,
    to: Annotated[Path, typer.Option("--to", help="The HTML file to write.")] = Path("report.html"),
    output: OutputOption = Output.TABLE,
) -> None:
    """Write the report of a run: one HTML page with all its results.

    The page is created on this machine, which reads the storage with your own credentials.
    """
    evolution = get_evolution(access.connect(), access, name)
    with tempfile.TemporaryDirectory() as folder:
        request = RunRequest(evolution, {}, Path(folder), evolution.metadata.uid[:8])
        page = str(write_report(request, to))
    if output is Output.JSON:
        sys.stdout.write(json_text({"report": page}) + "\n")
    else:
        print_line(page)


@kubectl_command("serve")
def serve(
    access: Access,
    name: Name,
    replicas: Annotated[int, typer.Option(min=1, help="The number of pods.")] = 1,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Add a CronJob that replaces the pods after a promotion."),
    ] = False,
    kserve: Annotated[
        bool, typer.Option("--kserve", help="Print a KServe InferenceService instead.")
    ] = False,
    image: Annotated[
        str, typer.Option(help="The image of the pods. Default: the image of the stages.")
    ] = "",
    operator_image: Annotated[
        str,
        typer.Option(
            help="The image of the CronJob. Default: the operator image, inferred from the name "
            "of the stage image."
        ),
    ] = "",
    api_key_secret: Annotated[
        str,
        typer.Option(
            metavar="SECRET",
            help="The Secret whose `api-key` entry clients must send. By default, no key is "
            "required.",
        ),
    ] = "",
    allow_host_access: Annotated[
        bool,
        typer.Option(
            "--allow-host-access",
            help="Also print pods that exceed the restricted Pod Security Standard, as set in "
            "podTemplate. By default, they are rejected, as in the operator.",
        ),
    ] = False,
) -> None:
    """Print a Deployment and a Service that serve the best model, without applying them.

    Pipe the output to `kubectl apply -f -`.
    """
    kube = access.connect()
    evolution = get_evolution(kube, access, name)
    with access.errors(kube, name):
        selector = f"{names.LABEL_UID}={evolution.metadata.uid}"
        jobs = kube.get(names.jobs_path(access.namespace), {"labelSelector": selector})["items"]
    settings = serve_manifests.job_settings(jobs, image)
    settings = dataclasses.replace(
        settings, pod_template=evaluation_template(jobs), host_access=allow_host_access
    )
    if not settings.pod_template:
        note = (
            "the Job of the last evaluation no longer exists: the installation's defaults "
            "are omitted"
        )
        print_line(
            f"warning: {note}: check the node selector, tolerations and volumes", stderr=True
        )
    if follow:
        operator_image = operator_image or serve_manifests.operator_image(settings.image)
    options = serve_manifests.ServeOptions(
        replicas=replicas,
        image=image,
        kserve=kserve,
        api_key_secret=api_key_secret,
        follow_image=operator_image if follow else "",
    )
    objects = serve_manifests.serve_manifests(evolution, settings, options)
    sys.stdout.write(serve_manifests.manifests_text(objects))


class ClusterSource:
    """An evolution on a cluster. A failed read returns the last state with a note.

    Parameters
    ----------
    access
        The cluster and the namespace.
    name
        The name of the evolution.
    """

    def __init__(self, access: Access, name: str) -> None:
        self._kube = access.connect()
        self._access, self._namespace, self._name = access, access.namespace, name
        self._evolution: EmotionEvolution | None = None
        #: The note of the present outage. The error differs between tries (reset, refused, timed
        #: out). Only the first is kept: otherwise each would count as a change.
        self._note = ""

    def read(self) -> tuple[EmotionEvolution, StageProgress]:
        """Return the resource, or the last one that was read with a note about the outage.

        Raises
        ------
        RunnerError
            If the first read fails, the API server refuses the request, or there is no such
            evolution.
        """
        from selfemo_operator.controller.kube.client import ApiError

        with self._access.errors(self._kube, self._name):
            try:
                self._evolution = _read(self._kube, self._namespace, self._name)
            except ApiError as error:
                if self._evolution is None or (400 <= error.status < 500 and error.status != 429):
                    raise
                self._note = self._note or f"The API server does not respond; retrying. ({error})"
                return self._evolution, StageProgress(note=self._note)
        self._note = ""
        return self._evolution, StageProgress()


def get_evolution(kube: KubeClient, access: Access, name: str) -> EmotionEvolution:
    """Return an evolution. Raises RunnerError if it does not exist or cannot be read.

    Parameters
    ----------
    kube
        The client.
    access
        The cluster and the namespace.
    name
        The name of the evolution.
    """
    with access.errors(kube, name):
        return _read(kube, access.namespace, name)


def _read(kube: KubeClient, namespace: str, name: str) -> EmotionEvolution:
    """Return an evolution. Raises ApiError, or RunnerError if it cannot be parsed."""
    content = kube.get(names.evolution_path((namespace, name)))
    try:
        return EmotionEvolution.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(str(problem) for problem in problems_of(error))
        raise RunnerError(
            f"{namespace}/{name} cannot be read, or was written for another version of this "
            f"command: {problems}"
        ) from None


def _set_suspend(access: Access, name: str, *, suspend: bool, as_json: bool) -> None:
    """Set ``spec.suspend`` of an evolution, and print that."""
    body: dict[str, Any] = {"spec": {"suspend": suspend}}
    kube, namespace = access.connect(), access.namespace
    with access.errors(kube, name):
        kube.patch(names.evolution_path((namespace, name)), body)
    if as_json:
        content = {"name": name, "namespace": namespace, "suspend": suspend}
        sys.stdout.write(json_text(content) + "\n")
    else:
        print_line(f"{namespace}/{name} is {'suspended' if suspend else 'resumed'}")


def main() -> None:
    """Run the command. An error is one line, with an exit code."""
    sys.exit(run_application(app, _PROGRAM))
