"""S3 that refuses, breaks and goes away: all against a real server."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.faulty_proxy import (
    BUSY,
    CONFLICT,
    CUT_BODY,
    DENIED,
    LOSE_REPLY,
    NO_UPLOAD,
    NOT_IMPLEMENTED,
    PASS,
    FaultyProxy,
)
from tests.support.s3_server import S3Server

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store import ObjectNotFound, Store, join, open_store
from selfemo_jobs.store.s3 import S3Store, split_uri


@pytest.fixture
def spec(s3: S3Server, tmp_path: Path) -> StorageSpec:
    return s3.storage(tmp_path.name)


def through(proxy: FaultyProxy, spec: StorageSpec) -> Store:
    return open_store(spec.model_copy(update={"endpoint": proxy.endpoint}))


def test_lost_reply_then_false_412_has_won(s3: S3Server, spec: StorageSpec) -> None:
    def plan(method: str, path: str, count: int) -> str:
        return LOSE_REPLY if method == "PUT" and count == 0 else PASS

    uri = join(spec.uri, "manifest.json")
    with FaultyProxy(s3.port, plan) as proxy:
        assert through(proxy, spec).put_if_absent(uri, b"ours")
        assert proxy.seen == [("PUT", LOSE_REPLY), ("PUT", PASS), ("GET", PASS)]
    assert open_store(spec).get(uri) == b"ours"


def test_true_412_has_lost(s3: S3Server, spec: StorageSpec) -> None:
    uri = join(spec.uri, "manifest.json")
    open_store(spec).put(uri, b"theirs")
    assert not open_store(spec).put_if_absent(uri, b"ours")
    assert open_store(spec).get(uri) == b"theirs"


def test_conflict_is_tried_again(s3: S3Server, spec: StorageSpec) -> None:
    def plan(method: str, path: str, count: int) -> str:
        return CONFLICT if count < 2 else PASS

    uri = join(spec.uri, "manifest.json")
    with FaultyProxy(s3.port, plan) as proxy:
        assert through(proxy, spec).put_if_absent(uri, b"x")
        assert [fault for _, fault in proxy.seen] == [CONFLICT, CONFLICT, PASS]


def test_conflict_without_end_is_unavailable(s3: S3Server, spec: StorageSpec) -> None:
    spec = spec.model_copy(update={"max_attempts": 2})
    with (
        FaultyProxy(s3.port, lambda *_: CONFLICT) as proxy,
        pytest.raises(Unavailable, match="other writers interfered"),
    ):
        through(proxy, spec).put_if_absent(join(spec.uri, "x"), b"x")


def test_replacement_with_a_lost_reply_then_a_false_412_has_won(
    s3: S3Server, spec: StorageSpec
) -> None:
    def plan(method: str, path: str, count: int) -> str:
        return LOSE_REPLY if method == "PUT" and count == 0 else PASS

    uri = join(spec.uri, "best")
    open_store(spec).put(uri, b"theirs")
    with FaultyProxy(s3.port, plan) as proxy:
        assert through(proxy, spec).replace(uri, b"ours", b"theirs")
        assert [method for method, _ in proxy.seen] == ["GET", "PUT", "PUT", "GET"]
        assert ("PUT", LOSE_REPLY) in proxy.seen
    assert open_store(spec).get(uri) == b"ours"


def test_replacement_after_a_conflict_is_tried_again(s3: S3Server, spec: StorageSpec) -> None:
    def plan(method: str, path: str, count: int) -> str:
        return CONFLICT if method == "PUT" and count < 2 else PASS

    uri = join(spec.uri, "best")
    open_store(spec).put(uri, b"theirs")
    with FaultyProxy(s3.port, plan) as proxy:
        assert through(proxy, spec).replace(uri, b"ours", b"theirs")
        assert [fault for method, fault in proxy.seen if method == "PUT"] == [
            CONFLICT,
            CONFLICT,
            PASS,
        ]
    assert open_store(spec).get(uri) == b"ours"
    spec = spec.model_copy(update={"max_attempts": 2})
    with (
        FaultyProxy(s3.port, lambda m, *_: CONFLICT if m == "PUT" else PASS) as proxy,
        pytest.raises(Unavailable, match="other writers interfered 2 times"),
    ):
        through(proxy, spec).replace(uri, b"more", b"ours")


def test_an_object_removed_before_its_replacement_is_not_made_again(
    s3: S3Server, spec: StorageSpec
) -> None:
    uri, removed = join(spec.uri, "best"), []

    def plan(method: str, path: str, count: int) -> str:
        if method == "PUT" and not removed:
            removed.append(open_store(spec).remove(spec.uri))
        return PASS

    open_store(spec).put(uri, b"theirs")
    with FaultyProxy(s3.port, plan) as proxy:
        assert not through(proxy, spec).replace(uri, b"ours", b"theirs")
    assert removed == [1]
    assert not open_store(spec).exists(uri)


def test_busy_server_is_tried_again_then_unavailable(s3: S3Server, spec: StorageSpec) -> None:
    uri = join(spec.uri, "x")

    def twice(method: str, path: str, count: int) -> str:
        return BUSY if count < 2 else PASS

    with FaultyProxy(s3.port, twice) as proxy:
        through(proxy, spec).put(uri, b"x")
    spec = spec.model_copy(update={"max_attempts": 2})
    with (
        FaultyProxy(s3.port, lambda *_: BUSY) as proxy,
        pytest.raises(Unavailable, match=r"SlowDown \(503\).*run the same command again"),
    ):
        through(proxy, spec).get(uri)
    assert len(proxy.seen) == 2


def test_body_cut_in_the_middle_is_read_again(
    s3: S3Server, spec: StorageSpec, tmp_path: Path
) -> None:
    def plan(method: str, path: str, count: int) -> str:
        return CUT_BODY if method == "GET" and count == 0 else PASS

    uri, data = join(spec.uri, "part"), os.urandom(100_000)
    open_store(spec).put(uri, data)
    with FaultyProxy(s3.port, plan) as proxy:
        assert through(proxy, spec).get(uri) == data
        assert [m for m, _ in proxy.seen] == ["GET", "GET"]
    with FaultyProxy(s3.port, plan) as proxy:
        through(proxy, spec).download(uri, tmp_path / "copy")
        assert [m for m, _ in proxy.seen].count("GET") == 2
    assert (tmp_path / "copy").read_bytes() == data


def test_body_always_cut_leaves_no_file(s3: S3Server, spec: StorageSpec, tmp_path: Path) -> None:
    uri = join(spec.uri, "part")
    open_store(spec).put(uri, b"x" * 100_000)
    spec = spec.model_copy(update={"max_attempts": 2})
    with FaultyProxy(s3.port, lambda m, *_: CUT_BODY if m == "GET" else PASS) as proxy:
        store = through(proxy, spec)
        with pytest.raises(Unavailable, match="part"):
            store.get(uri)
        with pytest.raises(Unavailable, match="part"):
            store.download(uri, tmp_path / "new" / "copy")
    assert list((tmp_path / "new").iterdir()) == []


def test_large_upload_goes_in_parts(s3: S3Server, spec: StorageSpec, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(20 << 20))
    with FaultyProxy(s3.port, lambda *_: PASS) as proxy:
        through(proxy, spec).upload(path, join(spec.uri, "weights"))
    assert sorted(method for method, _ in proxy.seen) == ["POST", "POST", "PUT", "PUT"]
    (info,) = open_store(spec).list(spec.uri)
    assert info.size == 20 << 20


@pytest.mark.parametrize("stored", [None, b"earlier"])
def test_a_large_upload_whose_last_reply_is_lost_has_arrived(
    stored: bytes | None, s3: S3Server, spec: StorageSpec, tmp_path: Path
) -> None:
    """Amazon S3 answers the second try with 404: the upload has become the object."""

    def plan(method: str, path: str, count: int) -> str:
        return {1: LOSE_REPLY, 2: NO_UPLOAD}.get(count, PASS) if method == "POST" else PASS

    path, uri = tmp_path / "weights", join(spec.uri, "weights")
    path.write_bytes(bytes(20 << 20))
    if stored:
        open_store(spec).put(uri, stored)
    with FaultyProxy(s3.port, plan) as proxy:
        through(proxy, spec).upload(path, uri)
        assert [m for m, f in proxy.seen if f == NO_UPLOAD] == ["POST"]
    (info,) = open_store(spec).list(spec.uri)
    assert info.size == 20 << 20


@pytest.mark.parametrize("size", [None, 7, 20 << 20])
def test_a_large_upload_that_is_removed_meanwhile_is_unavailable(
    size: int | None, s3: S3Server, spec: StorageSpec, tmp_path: Path
) -> None:
    """An earlier object of this size is not that of this upload."""

    def plan(method: str, path: str, count: int) -> str:
        return NO_UPLOAD if method == "POST" and count == 1 else PASS

    path, uri = tmp_path / "weights", join(spec.uri, "weights")
    path.write_bytes(bytes(20 << 20))
    if size:
        open_store(spec).put(uri, bytes(size))
        os.utime(s3.file(uri), (1.7e9, 1.7e9))
    with FaultyProxy(s3.port, plan) as proxy, pytest.raises(Unavailable, match="removed the"):
        through(proxy, spec).upload(path, uri)


@pytest.mark.parametrize("checksums", ["WhenSupported", "WhenRequired"])
def test_checksums_are_an_option(s3: S3Server, tmp_path: Path, checksums: str) -> None:
    seen: list[bool] = []
    spec = s3.storage(tmp_path.name, checksums=checksums)
    store = open_store(spec)
    assert isinstance(store, S3Store)
    store._client.meta.events.register(
        "before-send.s3.PutObject",
        lambda request, **_: seen.append(
            any(n.lower().startswith("x-amz-checksum-") for n in request.headers)
        ),
    )
    store.put(join(spec.uri, "x"), b"x")
    assert seen == [checksums == "WhenSupported"]


@pytest.mark.parametrize(
    ("key", "secret", "said"),
    [
        ("nobody", None, "UserNotFound: .*not known there.*AWS_ACCESS_KEY_ID"),
        (None, "wrong-secret-value", "SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_wrong_keys_are_explained_and_kept_secret(
    s3: S3Server,
    spec: StorageSpec,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    key: str | None,
    secret: str | None,
    said: str,
) -> None:
    if key:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    if secret:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    store, uri = open_store(spec), join(spec.uri, "a", "b.json")
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with caplog.at_level(logging.INFO):
        for call in (
            lambda: store.get(uri),
            lambda: store.put(uri, b"x"),
            lambda: store.put_if_absent(uri, b"x"),
            lambda: store.upload(path, uri),
            lambda: store.list(uri),
        ):
            with pytest.raises(BadInput, match=said) as caught:
                call()
            assert uri in str(caught.value)
            assert (secret or s3.secret_key) not in str(caught.value) + caplog.text
        for call in (lambda: store.exists(uri), lambda: store.download(uri, tmp_path / "copy")):
            # a HEAD has no code: a GET is asked for it, unless the HEAD claims that all is missing
            with pytest.raises(BadInput, match=f"{said}|no bucket"):
                call()


def test_no_credentials_are_explained(spec: StorageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadInput, match=r"credentials.*AWS_ACCESS_KEY_ID"):
        open_store(spec).get(join(spec.uri, "x"))


def test_missing_bucket_is_named(s3: S3Server, tmp_path: Path) -> None:
    spec = s3.storage().model_copy(update={"uri": "s3://no-such-bucket/run"})
    store, uri = open_store(spec), "s3://no-such-bucket/run/x"
    path = tmp_path / "file"
    path.write_bytes(b"x")
    for call in (
        lambda: store.get(uri),
        lambda: store.put(uri, b""),
        lambda: store.list(uri),
        lambda: store.exists(uri),
        lambda: store.upload(path, uri),
        lambda: store.download(uri, tmp_path / "copy"),
    ):
        with pytest.raises(BadInput, match="no-such-bucket"):
            call()


@pytest.mark.parametrize("bucket", ["UPPER_case!", "a"])
def test_impossible_bucket_name_is_refused(s3: S3Server, bucket: str) -> None:
    store = open_store(s3.storage().model_copy(update={"uri": f"s3://{bucket}"}))
    with pytest.raises(BadInput, match=bucket):
        store.put(f"s3://{bucket}/x", b"")


@pytest.mark.parametrize("uri", ["s3://", "s3://bucket", "s3://bucket/", "file:///x"])
def test_uri_without_bucket_or_key_is_refused(uri: str) -> None:
    with pytest.raises(BadInput, match="must be s3://bucket/key"):
        split_uri(uri)


def test_server_gone_is_unavailable_after_the_retries(s3: S3Server, spec: StorageSpec) -> None:
    spec = spec.model_copy(update={"max_attempts": 2})
    store, uri = open_store(spec), join(spec.uri, "x")
    store.put(uri, b"x")
    s3.stop()
    try:
        for call in (
            lambda: store.get(uri),
            lambda: store.put(uri, b"y"),
            lambda: store.put_if_absent(uri, b"y"),
            lambda: store.exists(uri),
            lambda: store.list(spec.uri),
        ):
            with pytest.raises(Unavailable, match="could not be reached in 2 attempts") as caught:
                call()
            assert s3.endpoint in str(caught.value)
    finally:
        s3.start()
    assert store.get(uri) == b"x"


def test_server_back_within_the_retries_is_not_noticed(
    s3: S3Server, spec: StorageSpec, tmp_path: Path
) -> None:
    # back-off is random: more tries than the default, so that a slow start is ridden out as well
    store, path = open_store(spec.model_copy(update={"max_attempts": 12})), tmp_path / "weights"
    path.write_bytes(os.urandom(20 << 20))
    s3.stop()
    threading.Timer(1.5, s3.start).start()
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        put = pool.submit(store.put_if_absent, join(spec.uri, "manifest.json"), b"m")
        up = pool.submit(store.upload, path, join(spec.uri, "weights"))
        assert put.result(timeout=90)
        up.result(timeout=90)
    assert time.monotonic() - began > 1
    store.download(join(spec.uri, "weights"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_hanging_server_is_waited_for(s3: S3Server, spec: StorageSpec) -> None:
    store, uri = open_store(spec), join(spec.uri, "x")
    store.put(uri, b"x")
    s3.pause()
    threading.Timer(1.0, s3.resume).start()
    assert store.get(uri) == b"x"


def test_upload_cut_by_an_outage_leaves_nothing_to_read(
    s3: S3Server, spec: StorageSpec, tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(40 << 20))
    spec = spec.model_copy(update={"max_attempts": 2})

    def plan(method: str, path: str, count: int) -> str:
        return BUSY if method == "PUT" and count > 0 else PASS

    uri = join(spec.uri, "weights")
    with FaultyProxy(s3.port, plan) as proxy, pytest.raises(Unavailable, match="weights"):
        through(proxy, spec).upload(path, uri)
    assert open_store(spec).list(spec.uri) == []
    with pytest.raises(ObjectNotFound):
        open_store(spec).get(uri)
    open_store(spec).upload(path, uri)  # the same command goes on
    assert open_store(spec).list(spec.uri)[0].size == 40 << 20


@pytest.mark.parametrize("fault", [DENIED, NOT_IMPLEMENTED])
def test_a_removal_does_not_fail_for_uploads_that_cannot_be_listed(
    fault: str, s3: S3Server, spec: StorageSpec, caplog: pytest.LogCaptureFixture
) -> None:
    def plan(method: str, path: str, count: int) -> str:
        return fault if method == "GET" and "uploads" in path else PASS

    uri = join(spec.uri, "run/part.parquet")
    open_store(spec).put(uri, b"x")
    with FaultyProxy(s3.port, plan) as proxy:
        assert through(proxy, spec).remove(join(spec.uri, "run")) == 1
        assert ("GET", fault) in proxy.seen
    assert "grant s3:ListBucketMultipartUploads" in caplog.text
    assert not open_store(spec).exists(uri)


def test_a_removal_that_is_denied_names_its_right(s3: S3Server, spec: StorageSpec) -> None:
    def plan(method: str, path: str, count: int) -> str:
        return DENIED if method == "DELETE" else PASS

    open_store(spec).put(join(spec.uri, "run/part.parquet"), b"x")
    with (
        FaultyProxy(s3.port, plan) as proxy,
        pytest.raises(BadInput, match=r"1 of 1 objects may not .*grant s3:DeleteObject there"),
    ):
        through(proxy, spec).remove(join(spec.uri, "run"))


def test_the_path_of_a_uri_is_percent_decoded(spec: StorageSpec) -> None:
    store, folder = open_store(spec), join(spec.uri, "my%20data")
    store.put(join(folder, "part%201/a=b%25.csv"), b"x")
    assert [info.uri for info in store.list(folder)] == [f"{folder}/part%201/a=b%25.csv"]
    assert store.list(join(spec.uri, "my%2520data")) == []
    assert store.get(join(folder, "part 1/a=b%25.csv")) == b"x"
    assert store.remove(folder) == 1
