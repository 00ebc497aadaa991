"""Events about purge Jobs that are not started."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.events import Event, EventReason, job_event_manifest
from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]
log = logging.getLogger(__name__)


class PurgeReports:
    """Reports each Job once.

    Parameters
    ----------
    kube
        The client of the API server.
    identity
        The name of the operator's pod.
    """

    def __init__(self, kube: KubeClient, identity: str) -> None:
        self._kube = kube
        self._identity = identity
        self._reported: set[str] = set()

    def has(self, job: Json) -> bool:
        """Return whether a Job was reported."""
        return job["metadata"]["uid"] in self._reported

    def copied(self, key: Key, job: Json) -> None:
        """Report a Job that has the name and the labels of a purge Job, and is not the operator's.

        It may be of an evolution that still exists in another cluster, or of data that a backup
        tool is about to make accessible again.
        """
        text = (
            "this Job is not started, because the operator has not created it: it is a copy, or a "
            f"backup tool has restored it. The data of {key[0]}/{key[1]} stays; delete the Job"
        )
        self.refused(job, text)

    def refused(self, job: Json, message: str) -> None:
        """Create an Event about a Job that is not started, with the reason."""
        if self.has(job):
            return
        metadata = job["metadata"]
        self._reported.add(metadata["uid"])
        log.warning("the Job %s/%s: %s", metadata["namespace"], metadata["name"], message)
        event = Event(EventReason.PURGE_REFUSED, message, warning=True)
        body = job_event_manifest(metadata, event, datetime.now(UTC), self._identity)
        try:
            self._kube.create(names.core_path(metadata["namespace"], "events"), body)
        except ApiError as error:  # no decision depends on Events
            log.warning("the Event about it was not created: %s", error)
