"""What every store promises, run against a folder and against a real S3 server."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store import ObjectInfo, ObjectNotFound, Store, join, open_store


@dataclass(frozen=True)
class Place:
    """A store and a fresh folder in it."""

    store: Store
    uri: str
    reopen: Callable[[], Store]

    def at(self, *parts: str) -> str:
        return join(self.uri, *parts)


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The same contract, for each kind of storage."""
    if request.param == "file":
        spec = StorageSpec(uri=f"file://{tmp_path}/store")
    else:
        spec = request.getfixturevalue("s3").storage(tmp_path.name)
    return Place(open_store(spec), spec.uri, lambda: open_store(spec))


def test_object_reads_back_and_is_replaced(place: Place) -> None:
    uri = place.at("a", "b.json")
    assert not place.store.exists(uri)
    place.store.put(uri, b"one")
    assert place.store.get(uri) == b"one"
    place.store.put(uri, b"")
    assert place.store.get(uri) == b""
    assert place.store.exists(uri)
    assert place.reopen().get(uri) == b""


def test_the_start_of_an_object(place: Place) -> None:
    uri = place.at("weights")
    place.store.put(uri, b"0123456789")
    assert place.store.get_start(uri, 4) == b"0123"
    assert place.store.get_start(uri, 100) == b"0123456789"
    place.store.put(uri, b"")
    assert place.store.get_start(uri, 4) == b""
    with pytest.raises(ObjectNotFound, match="none"):
        place.store.get_start(place.at("none"), 4)


def test_missing_object_is_said_to_be_missing(place: Place, tmp_path: Path) -> None:
    uri = place.at("none")
    with pytest.raises(ObjectNotFound, match="none"):
        place.store.get(uri)
    with pytest.raises(ObjectNotFound, match="none"):
        place.store.download(uri, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not place.store.exists(uri)
    assert place.store.list(place.at("nowhere")) == []


def test_a_folder_is_removed_and_its_neighbors_stay(place: Place) -> None:
    for name in ("run/a", "run/deep/b", "run-2/c", "ru"):
        place.store.put(place.at(name), b"x")
    assert place.store.remove(place.at("run")) == 2
    assert place.store.remove(place.at("run")) == 0
    left = [info.uri for info in place.store.list(place.uri)]
    assert left == [place.at("ru"), place.at("run-2", "c")]


def test_an_object_is_removed_alone(place: Place) -> None:
    for name in ("a", "a-2", "b/c"):
        place.store.put(place.at(name), b"x")
    place.store.delete(place.at("a"))
    place.store.delete(place.at("a"))
    place.store.delete(place.at("nowhere", "a"))
    assert [info.uri for info in place.store.list(place.uri)] == [place.at("a-2"), place.at("b/c")]


def test_folder_is_not_an_object(place: Place) -> None:
    place.store.put(place.at("folder", "file"), b"x")
    assert not place.store.exists(place.at("folder"))
    with pytest.raises(ObjectNotFound):
        place.store.get(place.at("folder"))


def test_put_if_absent_keeps_what_is_there(place: Place) -> None:
    uri = place.at("manifest.json")
    assert place.store.put_if_absent(uri, b"first")
    assert not place.store.put_if_absent(uri, b"second")
    assert place.store.get(uri) == b"first"


def test_put_if_absent_that_finds_its_own_bytes_has_won(place: Place) -> None:
    uri = place.at("manifest.json")
    assert place.store.put_if_absent(uri, b"same")
    assert place.reopen().put_if_absent(uri, b"same")


def test_race_of_conditional_puts_has_one_winner(place: Place) -> None:
    stores = [place.reopen() for _ in range(8)]
    for turn in range(5):
        uri = place.at(f"race-{turn}")
        gate = threading.Barrier(len(stores))

        def put(index: int, uri: str = uri, gate: threading.Barrier = gate) -> bool:
            gate.wait()
            return stores[index].put_if_absent(uri, b"%d" % index * 10_000)

        with ThreadPoolExecutor(len(stores)) as pool:
            won = list(pool.map(put, range(len(stores))))
        assert won.count(True) == 1
        assert place.store.get(uri) == b"%d" % won.index(True) * 10_000


def test_replace_writes_only_over_what_was_read(place: Place) -> None:
    uri = place.at("best", "manifest.json")
    assert not place.store.replace(uri, b"two", b"one"), "there is no object"
    assert not place.store.exists(uri)
    assert place.store.replace(uri, b"one", None)
    assert not place.store.replace(uri, b"other", None), "there is one"
    assert place.store.replace(uri, b"two", b"one")
    assert not place.store.replace(uri, b"three", b"one"), "it was replaced since"
    assert place.store.get(uri) == b"two"
    assert place.store.list(place.at("best")) == [ObjectInfo(uri, 3)]
    assert place.store.remove(place.at("best")) == 1
    assert place.store.list(place.uri) == []


def test_replace_that_finds_its_own_bytes_has_won(place: Place) -> None:
    uri = place.at("manifest.json")
    place.store.put(uri, b"one")
    assert place.store.replace(uri, b"two", b"one")
    assert place.reopen().replace(uri, b"two", b"one")
    assert place.reopen().replace(uri, b"two", None)


def test_race_of_replacements_has_one_winner(place: Place) -> None:
    stores = [place.reopen() for _ in range(8)]
    uri, current = place.at("race"), b"start"
    place.store.put(uri, current)
    for turn in range(5):
        gate = threading.Barrier(len(stores))

        def replace(
            index: int,
            gate: threading.Barrier = gate,
            turn: int = turn,
            expected: bytes = current,
        ) -> bool:
            gate.wait()
            return stores[index].replace(uri, b"%d-%d" % (turn, index) * 5_000, expected)

        with ThreadPoolExecutor(len(stores)) as pool:
            won = list(pool.map(replace, range(len(stores))))
        assert won.count(True) == 1
        current = place.store.get(uri)
        assert current == b"%d-%d" % (turn, won.index(True)) * 5_000


def test_counting_by_replacement_loses_no_step(place: Place) -> None:
    uri = place.at("count")
    place.store.put(uri, b"0 by -")

    def count(writer: int, store: Store) -> None:
        done = 0
        while done < 5:
            current = store.get(uri)
            # the writer is named, because equal bytes count as one's own
            text = b"%d by %d" % (int(current.split()[0]) + 1, writer)
            done += store.replace(uri, text, current)

    stores = [place.reopen() for _ in range(4)]
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(count, range(4), stores))
    assert place.store.get(uri).split()[0] == b"20"


def test_list_is_recursive_sorted_and_sized(place: Place) -> None:
    for name in ("b/2", "b/10", "a", "b-c/1", "c"):
        place.store.put(place.at("x", name), name.encode())
    place.store.put(place.at("xy"), b"not below")
    want = [
        ObjectInfo(place.at("x", name), len(name)) for name in ("a", "b-c/1", "b/10", "b/2", "c")
    ]
    assert place.store.list(place.at("x")) == want
    assert place.store.list(place.at("x/")) == want
    assert place.store.list(place.at("x", "b")) == want[2:4]
    assert place.store.get(want[1].uri) == b"b-c/1"


def test_list_goes_past_one_page(place: Place) -> None:
    names = [f"{i:05d}" for i in range(1003)]  # a page of S3 holds 1000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: place.store.put(place.at("many", name), b""), names))
    assert [info.uri for info in place.store.list(place.at("many"))] == [
        place.at("many", name) for name in names
    ]


def test_large_file_goes_up_and_down_whole(place: Place, tmp_path: Path) -> None:
    source, copy = tmp_path / "model.safetensors", tmp_path / "deep" / "copy"
    source.write_bytes(os.urandom(1 << 20) * 36 + b"tail")  # three parts of S3
    uri = place.at("model", "model.safetensors")
    place.store.upload(source, uri)
    assert place.store.list(place.at("model")) == [ObjectInfo(uri, source.stat().st_size)]
    place.store.download(uri, copy)
    assert copy.read_bytes() == source.read_bytes()
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_empty_file_goes_up_and_down(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    place.store.upload(tmp_path / "empty", place.at("empty"))
    place.store.download(place.at("empty"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""


def test_upload_of_a_missing_file_names_it(place: Place, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"gone\.bin does not exist"):
        place.store.upload(tmp_path / "gone.bin", place.at("x"))
    assert not place.store.exists(place.at("x"))


def test_readers_see_whole_objects_only(place: Place) -> None:
    uri, stop = place.at("changing"), threading.Event()
    versions = {b"a" * 300_000, b"b" * 200_000}
    place.store.put(uri, b"a" * 300_000)

    def write() -> None:
        while not stop.is_set():
            for data in versions:
                place.store.put(uri, data)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        seen = [place.store.get(uri) for _ in range(60)]
        listed = [place.store.list(place.uri) for _ in range(20)]
        stop.set()
        writer.result()
    assert set(seen) <= versions
    assert {tuple(info.uri for info in infos) for infos in listed} == {(uri,)}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.=+,@-]{0,30}", fullmatch=True),
    data=st.binary(max_size=2000),
)
def test_any_plain_name_and_any_bytes(place: Place, name: str, data: bytes) -> None:
    uri = place.at("names", name)
    place.store.put(uri, data)
    assert place.store.get(uri) == data
    assert ObjectInfo(uri, len(data)) in place.store.list(place.at("names"))


@pytest.mark.parametrize("uri", ["hf://a/b", "nonsense", "file://relative", "s3://"])
def test_uri_of_another_kind_is_refused(place: Place, uri: str) -> None:
    with pytest.raises(BadInput, match=r"must|is not"):
        place.store.get(uri)
