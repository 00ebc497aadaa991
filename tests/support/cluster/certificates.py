"""The cluster's certificate authority, and kubeconfigs with client certificates.

It uses the ``openssl`` command, because only some extras of this project install ``cryptography``.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.support.cluster.errors import ClusterError
from tests.support.cluster.locks import replace_text

_DAYS = "3650"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Creates certificates and keys in a folder; existing files stay unchanged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def certificate(self) -> Path:
        """The certificate of the authority."""
        return self._folder / "ca.crt"

    @property
    def key(self) -> Path:
        """The private key of the authority."""
        return self._folder / "ca.key"

    @property
    def account_key(self) -> Path:
        """The private key that signs the tokens of service accounts."""
        return self._folder / "service-accounts.key"

    def make(self) -> None:
        """Create the authority and the key of the service accounts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        if not self.certificate.exists():
            extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"]
            self._request("ca", "/CN=selfemo-test", extensions)
        if not self.account_key.exists():
            part = self.account_key.with_suffix(".part")
            _openssl("genrsa", "-out", str(part), "2048")
            part.replace(self.account_key)

    def serving(self, name: str, addresses: Iterable[str]) -> tuple[Path, Path]:
        """Return the certificate and key of a server; `addresses` are ``IP:…`` and ``DNS:…``."""
        usage = "extendedKeyUsage=serverAuth"
        return self._issue(name, f"/CN={name}", [usage, f"subjectAltName={','.join(addresses)}"])

    def client(self, name: str, user: str, group: str = "") -> tuple[Path, Path]:
        """Return the certificate and the key of a user of the API."""
        subject = (f"/O={group}" if group else "") + f"/CN={user}"
        return self._issue(name, subject, ["extendedKeyUsage=clientAuth"])

    def kubeconfig(self, path: Path, server: str, user: str, group: str = "") -> Path:
        """Write a self-contained kubeconfig for a user of the API; return its path."""
        certificate, key = self.client(path.stem, user, group)
        cluster = {"server": server, "certificate-authority-data": _encoded(self.certificate)}
        identity = {
            "client-certificate-data": _encoded(certificate),
            "client-key-data": _encoded(key),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "selfemo-test", "cluster": cluster}],
            "users": [{"name": user, "user": identity}],
            "contexts": [
                {"name": "selfemo-test", "context": {"cluster": "selfemo-test", "user": user}}
            ],
            "current-context": "selfemo-test",
        }
        text = json.dumps(config, indent=1)
        if not path.exists() or path.read_text() != text:
            replace_text(path, text, 0o600)
        return path

    def _issue(self, name: str, subject: str, extensions: list[str]) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        if not certificate.exists():
            signed = ["-CA", str(self.certificate), "-CAkey", str(self.key)]
            self._request(name, subject, ["basicConstraints=CA:FALSE", *extensions], signed)
        return certificate, key

    def _request(
        self, name: str, subject: str, extensions: list[str], signed: Iterable[str] = ()
    ) -> None:
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        part = certificate.with_suffix(".part")
        added = [word for extension in extensions for word in ("-addext", extension)]
        files = ["-keyout", str(key), "-out", str(part)]
        # the configuration of the machine would add other extensions
        config = self._folder / "openssl.cnf"
        config.write_text("[req]\ndistinguished_name = dn\n[dn]\n")
        arguments = ["-config", str(config), "-subj", subject, "-days", _DAYS, *added]
        _openssl("req", "-x509", *_KEY, *arguments, *signed, *files)
        part.replace(certificate)  # last: if the certificate exists, so does the key


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*arguments: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise ClusterError(
            "the openssl command (3.0 or later) is required: apt-get install openssl"
        )
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"openssl {' '.join(arguments)}: {result.stderr.strip()}")
