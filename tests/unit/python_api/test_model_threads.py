"""Models of several threads: each finds its own data."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from selfemo.model import _data_volumes
from selfemo_jobs.store.volumes import resolve_data_uri


def test_each_thread_finds_the_data_of_its_own_model(tmp_path: Path) -> None:
    """Up to Python 3.11, the lock of `cached_property` hides it if the threads do not hold this."""
    count = 4
    meeting = threading.Barrier(count)
    for number in range(count):
        (tmp_path / str(number)).mkdir()

    def find(number: int) -> Path:
        meeting.wait()
        with _data_volumes({"model": tmp_path / str(number)}):
            time.sleep(0.05)  # in which another thread could change the environment
            return resolve_data_uri("data://model")

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(find, range(count)))
    assert found == [tmp_path / str(number) for number in range(count)]
