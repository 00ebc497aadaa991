"""torchrun's rendezvous where there is one node: nothing listens, and nothing is unpickled.

That of `torchrun --standalone` is a store on all addresses of the machine. torchrun unpickles what
any host of the network writes to it.
"""

from __future__ import annotations

import uuid

from torch.distributed import HashStore  # type: ignore[attr-defined] # it is there on Linux
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
)


class OneNodeRendezvous(RendezvousHandler):
    """The rendezvous of the only node.

    Parameters
    ----------
    parameters
        What torchrun was called with.
    """

    def __init__(self, parameters: RendezvousParameters) -> None:
        self._backend = parameters.backend
        self._run = str(uuid.uuid4())
        self._closed = False

    def get_backend(self) -> str:
        """Return the name of the backend, for torchrun's log."""
        return self._backend

    def next_rendezvous(self) -> RendezvousInfo:
        """Return the number of this node and of all nodes, with a store in this process's memory.

        The address and the port are for libraries that want them set. No process connects there.
        """
        return RendezvousInfo(HashStore(), 0, 1, RendezvousStoreInfo("127.0.0.1", 29500))

    def is_closed(self) -> bool:
        """Return whether the rendezvous was closed."""
        return self._closed

    def set_closed(self) -> None:
        """Close the rendezvous."""
        self._closed = True

    def num_nodes_waiting(self) -> int:
        """Return 0: no other node can join."""
        return 0

    def get_run_id(self) -> str:
        """Return an id of this start."""
        return self._run

    def shutdown(self) -> bool:
        """Return True: nothing is open."""
        return True
