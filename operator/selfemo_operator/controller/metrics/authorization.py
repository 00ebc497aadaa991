"""Who may read the metrics: the API server is asked, as controller-runtime's metrics do.

A scrape has the token of a service account. A TokenReview tells whose it is, and a
SubjectAccessReview whether that account may `get` the path `/metrics`.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from typing import Any

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.metrics.http_server import (
    Handler,
    Headers,
    Response,
    status_response,
)

Json = dict[str, Any]
log = logging.getLogger(__name__)

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
#: Seconds for which an answer is kept. Prometheus scrapes more often.
ANSWER_SECONDS = 60.0
#: Allowed tokens that are known, and refused ones. They are apart: invented tokens must not push
#: out that of Prometheus.
MAX_ANSWERS = 64
#: Tokens that are reviewed in a second, of those that were allowed before and of the others. More
#: are refused with 429: whoever sends invented tokens must neither make the operator ask the API
#: server without a bound, nor use up the reviews that renew the answer for Prometheus.
REVIEWS_PER_SECOND = 5
_REFUSED = {401: "a bearer token is required", 403: "this account may not get /metrics"}


class _Answers:
    """The answers about one kind of tokens, and how many were reviewed in this second."""

    def __init__(self) -> None:
        #: By the hash of a token: the HTTP status, and until when it holds (monotonic).
        self._kept: dict[str, tuple[int, float]] = {}
        self._second = 0
        self._reviews = 0

    def __contains__(self, digest: str) -> bool:
        return digest in self._kept

    def status(self, digest: str, now: float) -> int | None:
        """Return the kept status, or None if it is not known any more."""
        status, until = self._kept.get(digest, (0, 0.0))
        return status if until > now else None

    def may_review(self, now: float) -> bool:
        """Count a review, and return whether this second has room for it."""
        if int(now) != self._second:
            self._second, self._reviews = int(now), 0
        self._reviews += 1
        return self._reviews <= REVIEWS_PER_SECOND

    def keep(self, digest: str, status: int, now: float) -> None:
        """Keep an answer; the oldest one makes room for it."""
        self.forget(digest)
        while len(self._kept) >= MAX_ANSWERS:
            self._kept.pop(next(iter(self._kept)))
        self._kept[digest] = (status, now + ANSWER_SECONDS)

    def forget(self, digest: str) -> None:
        self._kept.pop(digest, None)


class Authorizer:
    """Decides about the tokens of requests. Thread-safe.

    Parameters
    ----------
    kube
        The client of the API server.
    path
        The path that the account must be allowed to get.
    """

    def __init__(self, kube: KubeClient, path: str) -> None:
        self._kube = kube
        self._path = path
        self._lock = threading.Lock()
        self._allowed, self._refused = _Answers(), _Answers()

    def status(self, headers: Headers) -> int:
        """Return 200 if a request may be answered, otherwise the status of its refusal.

        Parameters
        ----------
        headers
            The headers of the request.
        """
        kind, _, token = (headers.get("Authorization") or "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            return 401
        digest, now = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest(), time.monotonic()
        with self._lock:
            answers = self._allowed if digest in self._allowed else self._refused
            kept = answers.status(digest, now)
            if kept is not None:
                return kept
            if not answers.may_review(now):
                return 429
        try:
            status = self._review(token.strip())
        except ApiError as error:
            log.warning("the token of a scrape cannot be reviewed: %s", error)
            return 503
        with self._lock:
            answers.forget(digest)
            (self._allowed if status == 200 else self._refused).keep(digest, status, now)
        return status

    def _review(self, token: str) -> int:
        review = self._kube.create(TOKEN_REVIEWS, _object("authentication", "Token", token=token))
        status: Json = review.get("status") or {}
        if not status.get("authenticated"):
            return 401
        user: Json = status.get("user") or {}
        spec = {
            "user": user.get("username", ""),
            "uid": user.get("uid", ""),
            "groups": user.get("groups", []),
            "extra": user.get("extra", {}),
            "nonResourceAttributes": {"path": self._path, "verb": "get"},
        }
        answer = self._kube.create(
            ACCESS_REVIEWS, _object("authorization", "SubjectAccess", **spec)
        )
        return 200 if (answer.get("status") or {}).get("allowed") else 403


def authorized(handler: Handler, authorizer: Authorizer) -> Handler:
    """Return a handler that answers only requests that the API server allows.

    Parameters
    ----------
    handler
        The handler of allowed requests.
    authorizer
        It decides about each request.
    """

    def handle(headers: Headers) -> Response:
        status = authorizer.status(headers)
        if status == 200:
            return handler(headers)
        return status_response(status, _REFUSED.get(status, "try again later"))

    return handle


def _object(group: str, kind: str, **spec: Any) -> Json:
    return {"apiVersion": f"{group}.k8s.io/v1", "kind": f"{kind}Review", "spec": spec}
