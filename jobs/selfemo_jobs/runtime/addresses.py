"""Where a server listens that other machines reach."""

from __future__ import annotations

import socket


def all_addresses() -> str:
    """Return the address of all of this machine's addresses.

    A socket of IPv6 accepts connections over IPv4 too. In a cluster with IPv6 alone, clients have
    nothing else.
    """
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - see above
