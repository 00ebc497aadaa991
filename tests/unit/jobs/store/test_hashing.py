from __future__ import annotations

import hashlib
from pathlib import Path

from selfemo_jobs.store.hashing import file_sha256, sha256


def test_a_file_has_the_hash_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000  # larger than any read buffer
    path = tmp_path / "file"
    path.write_bytes(data)
    assert file_sha256(path) == sha256(data) == hashlib.sha256(data).hexdigest()
