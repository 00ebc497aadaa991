"""Images for the tests. Buildah builds them, and they are imported into the node's runtime."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from tests.support.cluster import binaries, runtime, settings
from tests.support.cluster.commands import require, run
from tests.support.cluster.locks import replace_text
from tests.support.cluster.state import State

_USER = 65532
#: Links to the folders below `/usr`, which is mounted from the node.
_LINKS = {"lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}


def ensure_images(state: State) -> None:
    """Build and import the pause image and the base image of the jobs, unless they are current."""
    builders = {settings.PAUSE_IMAGE: _pause, settings.BASE_IMAGE: _base}
    stamp = state.data / "images.json"
    sources = [Path(__file__), Path(settings.__file__), binaries.program("pause")]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    if stamp.exists() and json.loads(stamp.read_text()) == version:
        return
    for reference, fill in builders.items():
        archive = state.folder / "images" / f"{reference.rpartition('/')[2].replace(':', '-')}.tar"
        built = archive.with_suffix(".version")
        if not built.exists() or built.read_text() != version:
            with tempfile.TemporaryDirectory(dir=state.folder) as root:
                arguments = fill(Path(root))
                build(state, Path(root), reference, archive, arguments)
            replace_text(built, version)
        import_image(state, archive)
    replace_text(stamp, json.dumps(version))


def build(state: State, root: Path, reference: str, archive: Path, config: list[str]) -> Path:
    """Build an image from a folder.

    Parameters
    ----------
    state
        The cluster whose folder contains buildah's store.
    root
        The folder with the image's file system. Root will own all of its files.
    reference
        The name and the tag of the image.
    archive
        The path of the archive to write, in the format of ``docker load``.
    config
        The options of ``buildah config``.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_suffix(".part")
    part.unlink(missing_ok=True)
    container = _buildah(state, "from", "scratch").strip()
    try:
        _buildah(state, "copy", "--chown=0:0", container, f"{root}/", "/")
        _buildah(state, "config", *config, container)
        _buildah(state, "commit", "--quiet", container, reference)
    finally:
        _buildah(state, "rm", container)
    _buildah(state, "push", "--quiet", reference, f"docker-archive:{part}:{reference}")
    part.replace(archive)
    return archive


def import_image(state: State, image: str | Path) -> list[str]:
    """Import an image into the node; pods use it with ``imagePullPolicy: Never``.

    Parameters
    ----------
    state
        A cluster with a node.
    image
        An archive (of Docker or OCI), or the name of an image in buildah's store or in that of the
        cluster's folder.

    Returns
    -------
    list of str
        The output of `ctr` for each image.
    """
    if Path(image).is_file():
        return runtime.import_archive(state, Path(image))
    with tempfile.TemporaryDirectory(dir=state.folder) as folder:
        archive = Path(folder) / "image.tar"
        target = f"docker-archive:{archive}:{image}"
        here = _buildah(state, "images", "--quiet", str(image), check=False).strip()
        if here:
            _buildah(state, "push", "--quiet", str(image), target)
        else:
            run(require("buildah"), "push", "--quiet", str(image), target)
        return runtime.import_archive(state, archive)


def _buildah(state: State, *arguments: str, check: bool = True) -> str:
    store = state.folder / "buildah"
    # vfs: overlayfs may not be allowed, and the images are small
    driver = ("--storage-driver=vfs", f"--root={store}/root", f"--runroot={store}/run")
    return run(require("buildah"), *driver, *arguments, check=check)


def _pause(root: Path) -> list[str]:
    shutil.copy2(binaries.program("pause"), root / "pause")
    return ["--entrypoint", '["/pause"]', "--user", f"{_USER}:{_USER}"]


def _base(root: Path) -> list[str]:
    """Create a file system with busybox and the mount points for the node's Python."""
    for folder in ("bin", "etc", "home/selfemo", "opt/selfemo", "proc", "sys", "usr", "work"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    busybox = root / "bin" / "busybox"
    shutil.copy2(require("busybox"), busybox)
    for applet in run(str(busybox), "--list").split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    home = "/home/selfemo"
    (root / "etc" / "passwd").write_text(
        f"root:x:0:0:root:/root:/bin/sh\nselfemo:x:{_USER}:{_USER}:selfemo:{home}:/bin/sh\n"
    )
    (root / "etc" / "group").write_text(f"root:x:0:\nselfemo:x:{_USER}:\n")
    path = "/opt/selfemo/bin:/usr/local/bin:/usr/bin:/bin"
    environment = [f"PATH={path}", f"HOME={home}"]
    added = [word for pair in environment for word in ("--env", pair)]
    return [*added, "--user", f"{_USER}:{_USER}", "--workingdir", "/work"]
