"""A folder that is full, read-only, or left by a killed process: real ones, not mocks."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store import ObjectInfo, Store, local_files, open_store
from selfemo_jobs.store.folder import FileStore, file_path
from selfemo_jobs.store.local_files import is_temporary


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small memory file system with the given options, or skip the test."""
    folders: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mount-{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no `mount` here")
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


def calls(store: Store, uri: str, big: Path) -> list[Callable[[], object]]:
    return [
        lambda: store.put(uri, bytes(1 << 20)),
        lambda: store.put_if_absent(uri, bytes(1 << 20)),
        lambda: store.upload(big, uri),
        lambda: store.download(f"file://{big}", file_path(uri)),
    ]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(bytes(1 << 20))
    return path


def test_full_disk_names_the_path_and_loses_nothing(
    mounted: Callable[[str], Path], big: Path
) -> None:
    folder = mounted("size=256k")
    store = open_store(StorageSpec(uri=f"file://{folder}"))
    uri = f"file://{folder}/stage/part.parquet"
    store.put(uri, b"before")
    for call in calls(store, uri, big):
        with pytest.raises(BadInput, match=r"stage/part\.parquet: disk full: free space"):
            call()
        assert names(folder / "stage") == ["part.parquet"]
    assert store.get(uri) == b"before"
    store.put(uri, b"after")  # once there is room, the same command goes on
    assert store.get(uri) == b"after"


def test_read_only_folder_is_explained(mounted: Callable[[str], Path], big: Path) -> None:
    folder = mounted("size=256k")
    (folder / "old").write_bytes(b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    store = open_store(StorageSpec(uri=f"file://{folder}"))
    for call in calls(store, f"file://{folder}/new", big):
        with pytest.raises(BadInput, match="new: Read-only file system: grant this user"):
            call()
    assert store.get(f"file://{folder}/old") == b"x"


@pytest.mark.parametrize("folder", ["/sys/selfemo", "/proc/selfemo"])
def test_folder_that_cannot_be_created_is_explained(folder: str, big: Path) -> None:
    if not Path(folder).parent.is_dir():
        pytest.skip(f"there is no {Path(folder).parent}")
    store = open_store(StorageSpec(uri=f"file://{folder}"))
    for call in calls(store, f"file://{folder}/x", big):
        with pytest.raises(BadInput, match=folder):
            call()
    assert store.list(f"file://{folder}") == []


def test_folder_of_another_user_is_explained(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    code = (
        "import sys; from selfemo_api.spec import StorageSpec\n"
        "from selfemo_jobs.store.folder import FileStore\n"
        "from selfemo_jobs.errors import BadInput\n"
        "import selfemo_jobs.store.local_files, os\n"
        f"os.chdir({str(folder)!r})\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        f"store = FileStore(StorageSpec(uri='file://{folder}'))\n"
        "try: store.put('file:///proc/self/cwd/x', b'x')\n"
        "except BadInput as error: print(error); sys.exit(2)\n"
    )
    done = run(code)
    assert done.returncode == 2, done.stderr
    assert "Permission denied: grant this user" in done.stdout


def test_the_root_of_a_volume_is_listed() -> None:
    code = (
        "import os\n"
        "from selfemo_api.spec import StorageSpec\n"
        "from selfemo_jobs.store.folder import FileStore\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "uri = f'file://{os.getcwd()}'\n"
        "for info in FileStore(StorageSpec(uri=uri)).list(uri): print(info.uri)\n"
    )
    with TemporaryDirectory() as made:  # the folders of pytest are for one user alone
        folder = Path(made)
        (folder / "lost+found").mkdir(mode=0o700)
        (folder / "model.json").write_text("{}")
        folder.chmod(0o755)
        done = run(f"import os; os.chdir({made!r})\n{code}")
    assert done.stdout == f"file://{folder}/model.json\n", done.stderr


def test_limit_on_file_size_is_explained(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from selfemo_api.spec import StorageSpec\n"
        "from selfemo_jobs.store.folder import FileStore\n"
        "from selfemo_jobs.errors import BadInput\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"store = FileStore(StorageSpec(uri='file://{tmp_path}'))\n"
        f"store.put('file://{tmp_path}/small', bytes(1000))\n"
        f"try: store.put('file://{tmp_path}/large', bytes(5000))\n"
        "except BadInput as error: print(error); sys.exit(2)\n"
    )
    done = run(code)
    assert done.returncode == 2, done.stderr
    assert f"{tmp_path}/large: file too large" in done.stdout
    assert names(tmp_path) == ["small"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_killed_writer_leaves_nothing_to_see(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path\n"
        "from selfemo_jobs.store.local_files import replacing\n"
        f"with replacing(Path({str(tmp_path / 'part')!r})) as file:\n"
        "    file.write(bytes(100_000)); file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run(code).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert is_temporary(left.name)
    store = open_store(StorageSpec(uri=f"file://{tmp_path}"))
    assert store.list(f"file://{tmp_path}") == []
    assert not store.exists(f"file://{tmp_path}/part")
    store.put(f"file://{tmp_path}/part", b"again")
    assert left.exists()  # it might be another process's write under way
    os.utime(left, (0, 0))
    assert (
        run(
            f"from selfemo_jobs.store.local_files import replacing\nfrom pathlib import Path\n"
            f"with replacing(Path({str(tmp_path / 'other')!r})): pass\n"
        ).returncode
        == 0
    )
    assert names(tmp_path) == ["other", "part"]


LOCKED = (
    "import os, signal, sys, time; from pathlib import Path\n"
    "from selfemo_jobs.store.local_files import locked_folder\n"
    "with locked_folder(Path(sys.argv[1])):\n"
    "    print('locked', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_the_lock_of_a_killed_writer_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, uri = open_store(StorageSpec(uri=tmp_path.as_uri())), f"{tmp_path.as_uri()}/best"
    store.put(uri, b"one")
    monkeypatch.setattr(local_files, "_LOCK_SECONDS", 0.2)
    writer = subprocess.Popen(
        [sys.executable, "-c", LOCKED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "locked\n"
        try:
            with pytest.raises(Unavailable, match="was locked for 0 seconds; run the same command"):
                store.replace(uri, b"two", b"one")
            assert store.get(uri) == b"one"
        finally:
            writer.kill()
    assert store.replace(uri, b"two", b"one")
    assert store.list(tmp_path.as_uri()) == [ObjectInfo(uri, 3)]


def test_a_writer_killed_while_it_replaces_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    uri = f"{tmp_path.as_uri()}/best"
    store = open_store(StorageSpec(uri=tmp_path.as_uri()))
    for call in ("fsync", "replace"):
        store.put(uri, b"old")
        code = (
            "import os, pathlib, signal; from selfemo_api.spec import StorageSpec\n"
            "from selfemo_jobs.store import open_store\n"
            "def kill(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
            f"store = open_store(StorageSpec(uri={tmp_path.as_uri()!r}))\n"
            f"{'os.fsync' if call == 'fsync' else 'pathlib.Path.replace'} = kill\n"
            f"store.replace({uri!r}, b'new', b'old')\n"
        )
        assert run(code).returncode == -signal.SIGKILL
        assert store.get(uri) == b"old"
        assert store.replace(uri, b"new", b"old")
        assert store.get(uri) == b"new"


@pytest.mark.parametrize("call", [FileStore.put, FileStore.put_if_absent])
def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., object]
) -> None:
    """After a power failure, a name has the whole content, and what was reported is there."""
    path, fsync = tmp_path / "part", os.fsync
    synced: list[tuple[bool, bytes, bool]] = []

    def record(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        content = b"" if target.is_dir() else target.read_bytes()
        synced.append((target == tmp_path, content, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    call(FileStore(StorageSpec(uri=tmp_path.as_uri())), path.as_uri(), b"data")
    assert synced == [(False, b"data", False), (True, b"", True)]


@pytest.fixture
def removals(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], None]:
    """Call a function before each removal of a folder."""
    rmtree = shutil.rmtree

    def set_up(before: Callable[[Path], None]) -> None:
        def remove(folder: Path) -> None:
            before(folder)
            rmtree(folder)

        monkeypatch.setattr("selfemo_jobs.store.folder.shutil.rmtree", remove)

    return set_up


def test_two_processes_remove_a_folder(
    tmp_path: Path, removals: Callable[[Callable[[Path], None]], None]
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    first = iter([True])

    def other_process(folder: Path) -> None:
        if next(first, False):
            (folder / "a").unlink()
            raise FileNotFoundError(errno.ENOENT, "No such file", "a")

    removals(other_process)
    assert FileStore(StorageSpec(uri=tmp_path.as_uri())).remove(tmp_path.as_uri()) == 3
    assert not tmp_path.exists()


NFS_OPEN = ".nfs000000000123abcd00000001"


def test_a_file_that_is_open_on_nfs_is_not_content(
    tmp_path: Path, removals: Callable[[Callable[[Path], None]], None]
) -> None:
    store = FileStore(StorageSpec(uri=tmp_path.as_uri()))
    (tmp_path / NFS_OPEN).touch()
    (tmp_path / "a").touch()
    assert [info.uri.rpartition("/")[2] for info in store.list(tmp_path.as_uri())] == ["a"]

    def in_use(folder: Path) -> None:
        (folder / "a").unlink(missing_ok=True)
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(folder))

    removals(in_use)
    assert store.remove(tmp_path.as_uri()) == 1  # the file system removes the rest
    assert names(tmp_path) == [NFS_OPEN]


def test_a_folder_into_which_another_process_writes_is_unavailable(
    tmp_path: Path, removals: Callable[[Callable[[Path], None]], None]
) -> None:
    (tmp_path / "a").touch()

    def written(folder: Path) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(folder))

    removals(written)
    with pytest.raises(Unavailable, match="/a: another process is writing there; run the same"):
        FileStore(StorageSpec(uri=tmp_path.as_uri())).remove(tmp_path.as_uri())


def test_a_link_in_place_of_a_folder_is_removed_and_its_target_stays(tmp_path: Path) -> None:
    store = open_store(StorageSpec(uri=tmp_path.as_uri()))
    store.put(f"{tmp_path.as_uri()}/other/weights", b"x")
    (tmp_path / "model").symlink_to(tmp_path / "other")
    store.remove(f"{tmp_path.as_uri()}/model")
    assert names(tmp_path) == ["other"]
    assert names(tmp_path / "other") == ["weights"]


def test_path_through_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = open_store(StorageSpec(uri=f"file://{tmp_path}"))
    with pytest.raises(BadInput, match=r"file/x: (Not a directory|File exists)"):
        store.put(f"file://{tmp_path}/file/x", b"")
    assert not store.exists(f"file://{tmp_path}/file/x")
    with pytest.raises(BadInput, match="Is a directory"):
        store.put(f"file://{tmp_path}", b"")


def test_files_follow_the_umask_for_other_users(tmp_path: Path) -> None:
    store = open_store(StorageSpec(uri=f"file://{tmp_path}"))
    before = os.umask(0o022)
    try:
        store.put(f"file://{tmp_path}/x", b"")
        store.put_if_absent(f"file://{tmp_path}/y", b"")
    finally:
        os.umask(before)
    for name in "xy":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644


def test_names_with_spaces_and_percent_signs_round_trip(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "50% c").write_bytes(b"x")
    store = FileStore(StorageSpec(uri=f"file://{tmp_path}"))
    (info,) = store.list(f"file://{tmp_path}/a%20b")
    assert info.uri == f"file://{tmp_path}/a%20b/50%25%20c"
    assert store.get(info.uri) == b"x"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
