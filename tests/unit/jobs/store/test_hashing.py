from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from selfemo_jobs.store.hashing import file_sha256, sha256


def test_a_file_has_the_hash_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000  # larger than any read buffer
    path = tmp_path / "file"
    path.write_bytes(data)
    assert file_sha256(path) == sha256(data) == hashlib.sha256(data).hexdigest()


def test_a_file_that_may_not_be_read_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "part.bin"
    path.write_bytes(b"x")
    path.chmod(0o200)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from selfemo_jobs.errors import BadInput\n"
        "from selfemo_jobs.store.hashing import file_sha256\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: file_sha256(Path('part.bin'))\n"
        "except BadInput as error: print(error); sys.exit(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "part.bin: Permission denied: grant this user (" in done.stdout
