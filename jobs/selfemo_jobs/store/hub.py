"""The Hugging Face Hub: its errors as errors on which a user can act."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from selfemo_api.text.control_characters import visible
from selfemo_jobs.errors import BadInput, Unavailable, error_line
from selfemo_jobs.store.certificates import is_untrusted, missing_file
from selfemo_jobs.store.local_files import translated_errors

#: Replies that may be another one later: the hub is busy, or another commit came in between.
_PASSING = frozenset({408, 409, 412, 423, 429})


@contextmanager
def translated_hub_errors(
    uri: str, revision: str | None, kind: Literal["model", "dataset"]
) -> Iterator[None]:
    """Translate the errors of ``huggingface_hub`` that the block raises.

    Parameters
    ----------
    uri
        The URI of the repository, for messages.
    revision
        The revision that is read; None: the default branch.
    kind
        What the repository has.

    Raises
    ------
    BadInput
        If there is no such repository or revision, it may not be read, or the certificate of the
        hub is not trusted.
    Unavailable
        If the hub cannot be reached.
    """
    import httpx
    from huggingface_hub import errors as hub

    name = f"{uri} at revision {revision}" if revision else uri
    try:
        with translated_errors(Path("the Hub's cache (HF_HOME)")):
            yield
    except hub.HFValidationError:
        raise BadInput(f"{uri} must be hf://owner/name") from None
    except hub.RevisionNotFoundError:
        raise BadInput(f"{name}: the revision does not exist on the Hub") from None
    except hub.GatedRepoError:
        raise BadInput(f"{name}: ask the owner for access, and set HF_TOKEN") from None
    except hub.RepositoryNotFoundError:
        raise BadInput(
            f"{name}: the {kind} does not exist on the Hub, or HF_TOKEN may not read it"
        ) from None
    except hub.HfHubHTTPError as error:
        status = error.response.status_code
        said = f" ({error_line(visible(error.server_message))})" if error.server_message else ""
        if status >= 500 or status in _PASSING:
            raise Unavailable(
                f"{name}: the Hub responded with {status}{said}; run the same command again"
            ) from error
        raise BadInput(
            f"{name}: the Hub rejected the request with {status}{said}: check the name and HF_TOKEN"
        ) from error
    except (hub.LocalEntryNotFoundError, hub.XetDownloadError, OSError, httpx.HTTPError) as error:
        if is_untrusted(error):
            raise BadInput(
                f"{name}: the Hub's certificate is not trusted: set SSL_CERT_FILE to a CA bundle "
                "with the certificate of its authority"
            ) from error
        missing = missing_file("SSL_CERT_FILE")
        if missing:
            raise BadInput(f"{name}: {missing}") from error
        raise Unavailable(
            f"{name}: the Hub could not be reached; run the same command again when it is "
            f"reachable, or use a {kind} in a folder or on S3"
        ) from error
