"""Lists the identities of objects: their names, uids and versions, without anything else."""

from __future__ import annotations

from selfemo_operator.controller.caches.evolution_text import METADATA_LIST, Identity, identities
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.kube.pages import read_pages
from selfemo_operator.controller.objects.names import Key


def list_identities(
    kube: KubeClient, path: str, query: dict[str, str]
) -> tuple[dict[Key, Identity], str]:
    """List the metadata of all objects of a path, page by page.

    Parameters
    ----------
    kube
        The client of the API server.
    path
        The path of the list.
    query
        The query of the list.

    Returns
    -------
    dict
        The identities by namespace and name.
    str
        The resource version of the list.

    Raises
    ------
    ApiError
        If the API server rejects a request or cannot be reached.
    """
    listed: dict[Key, Identity] = {}

    def read(text: bytes) -> tuple[str, str]:
        items, version, token = identities(text)
        listed.update({item.key: item for item in items})
        return version, token

    return listed, read_pages(read, kube, path, query, METADATA_LIST)
