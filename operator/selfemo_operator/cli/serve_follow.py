"""Follows promotions: ``python -m selfemo_operator.cli.serve_follow NAME --namespace NAMESPACE``.

A CronJob that ``kubectl selfemo serve --follow`` prints runs it. It compares the best generation of
an evolution with the one in an annotation of the served pods, and sets the annotation. Kubernetes
then replaces the pods one by one, and each new pod loads the best model. A run that is left out
loses nothing: the next one sees the same difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import Stage
from selfemo_operator.cli.output_format import print_line
from selfemo_operator.controller.objects import names

if TYPE_CHECKING:
    from selfemo_operator.controller.kube.client import KubeClient

Json = dict[str, Any]

#: The annotation of the pods with the generation that they serve.
ANNOTATION_GENERATION = names.LABEL_GENERATION


class FollowTarget(NamedTuple):
    """The object whose pods are replaced after a promotion."""

    group: str
    """Its API group."""
    resource: str
    """Its resource, such as ``deployments``."""
    name: str
    """Its name."""
    path: str
    """Its path at the API server."""
    annotations: tuple[str, ...]
    """The fields above the annotations of its pods."""


def follow_target(key: names.Key, *, kserve: bool) -> FollowTarget:
    """Return the object whose pods are replaced after a promotion.

    Parameters
    ----------
    key
        The namespace and the name of the evolution.
    kserve
        Whether the model is served by KServe.

    Examples
    --------
    >>> follow_target(("team", "demo"), kserve=False).path
    '/apis/apps/v1/namespaces/team/deployments/demo-serve'
    """
    name = f"{key[1]}-serve"
    if kserve:
        group, version, resource = "serving.kserve.io", "v1beta1", "inferenceservices"
        fields: tuple[str, ...] = ("spec", "predictor", "annotations")
    else:
        group, version, resource = "apps", "v1", "deployments"
        fields = ("spec", "template", "metadata", "annotations")
    path = f"/apis/{group}/{version}/namespaces/{key[0]}/{resource}/{name}"
    return FollowTarget(group, resource, name, path, fields)


def generation_text(generation: int) -> str:
    """Return a generation as an annotation has it.

    >>> generation_text(3)
    '003'
    """
    return f"{generation:03d}"


def published_generation(evolution: EmotionEvolution) -> int | None:
    """Return the best generation once `best/manifest.json` names it, otherwise None.

    The stage Publish writes that file after the promotion is in the status. A pod that starts
    before would load the earlier model.

    Parameters
    ----------
    evolution
        The evolution, with its status.
    """
    status = evolution.status
    published = next((s for s in status.stages if s.stage is Stage.PUBLISH and s.runs), None)
    if status.best is None or published is None or published.generation < status.best.generation:
        return None
    return status.best.generation


def follow(kube: KubeClient, key: names.Key, *, kserve: bool) -> str:
    """Set the annotation of the served pods to the best generation, and return what was done.

    Parameters
    ----------
    kube
        The API server.
    key
        The namespace and the name of the evolution.
    kserve
        Whether the model is served by KServe.

    Raises
    ------
    ApiError
        If the API server refuses a request or does not respond.
    """
    generation = published_generation(
        EmotionEvolution.model_validate(kube.get(names.evolution_path(key)))
    )
    if generation is None:
        return "no new best model has been published"
    target, text = follow_target(key, kserve=kserve), generation_text(generation)
    annotations: Any = kube.get(target.path)
    for field in target.annotations:
        annotations = annotations.get(field) or {}
    if annotations.get(ANNOTATION_GENERATION) == text:
        return f"generation {generation} is served"
    patch: Json = {ANNOTATION_GENERATION: text}
    for field in reversed(target.annotations):
        patch = {field: patch}
    kube.patch(target.path, patch)
    return f"{target.resource}/{target.name} changes to generation {generation}"


def main(argv: Sequence[str] | None = None) -> int:
    """Follow once, and return the exit code."""
    from selfemo_operator.controller.kube.client import ApiError, KubeClient

    parser = argparse.ArgumentParser(prog="serve_follow", description="Follow a promotion once.")
    parser.add_argument("name", help="the evolution's name")
    parser.add_argument("--namespace", required=True, help="its namespace")
    parser.add_argument("--kserve", action="store_true", help="whether KServe serves the model")
    arguments = parser.parse_args(argv)
    key = (arguments.namespace, arguments.name)
    try:
        print_line(follow(KubeClient(connections=1), key, kserve=arguments.kserve))
    except ApiError as error:
        print_line(f"serve_follow: {error}", stderr=True)
        return ExitCode.UNAVAILABLE if error.is_retryable else ExitCode.BAD_INPUT
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
