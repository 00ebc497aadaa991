"""The limit on the number of requests in a second."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.request_rate import RequestRate


class Clock:
    """A clock that sleeping advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0.0
        self.now += seconds


def times(rate: RequestRate, clock: Clock, number: int) -> list[float]:
    start = clock.now
    result = []
    for _ in range(number):
        rate.wait()
        result.append(round(clock.now - start, 6))
    return result


def test_requests_of_one_second_may_come_at_once() -> None:
    clock = Clock()
    rate = RequestRate(4, clock, clock.sleep)
    assert times(rate, clock, 8) == [0.0] * 4 + [0.25, 0.5, 0.75, 1.0]
    clock.now += 0.5
    assert times(rate, clock, 3) == [0.0, 0.0, 0.25]
    clock.now += 1000.0  # a long pause allows no more than one second does
    assert times(rate, clock, 5) == [0.0] * 4 + [0.25]


@pytest.fixture
def client(tmp_path_factory: pytest.TempPathFactory) -> Callable[[RequestRate], KubeClient]:
    """A function that makes a client of a server that does not exist."""
    path = tmp_path_factory.mktemp("kube") / "config"
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
    )
    return lambda rate: KubeClient(connections=1, kubeconfig=str(path), rate=rate)


def test_each_request_waits_but_for_those_with_a_deadline(
    client: Callable[[RequestRate], KubeClient],
) -> None:
    clock = Clock()
    kube = client(RequestRate(1, clock, clock.sleep))
    urgent = copy.copy(kube).with_timeout(1.0)
    for number in range(3):
        with pytest.raises(ApiError):
            kube.get("/api")
        assert clock.now == 100.0 + number
        with pytest.raises(ApiError):
            urgent.get("/api")  # such as a renewal of the Lease
        assert clock.now == 100.0 + number
