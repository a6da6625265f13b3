"""What the hosts of a URL lead to, and how the time to connect is shared between them.

A name may have several addresses, and one of them may be silent: IPv6 where there is no way, a server that is gone and
still in DNS. Neither psycopg nor Python's sockets leave time for the next one then.
"""

import socket
import time
from typing import NamedTuple

from shared.db.failures import connect_error_from
from shared.db.url import DatabaseURL, Host
from shared.errors import DatabaseUnavailable


class Place(NamedTuple):
    """A host and one of its addresses; a Unix socket has none."""

    host: Host
    address: str


class Attempts:
    """The places where a connection may be made, and the seconds for all of them together.

    Each attempt gets an equal share of what those before it have left. `refused` keeps what servers said, by host: it
    tells more than that another address is silent, and another address of the host would say the same. Raises
    DatabaseUnavailable.
    """

    def __init__(self, url: DatabaseURL, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self.places = _places(url)
        self.refused: dict[Host, Exception] = {}
        # Who prefers a standby goes through them a second time.
        self._left = len(self.places) * (2 if url.params.get("target_session_attrs") == "prefer-standby" else 1)

    def share(self) -> float:
        """Give the seconds for the next one."""
        share = max(0.0, self._until - time.monotonic()) / max(1, self._left)
        self._left -= 1
        return share


def _places(url: DatabaseURL) -> list[Place]:
    """Give every address of every host, in the resolver's order; a name that is not known counts where all are."""
    found: dict[Place, None] = {}
    failure = DatabaseUnavailable("the URL names no host")
    for host in url.hosts:
        if host.is_socket:
            found[Place(host, "")] = None
            continue
        try:
            answers = socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # the latter of what cannot be a name
            failure = connect_error_from(None, f"failed to resolve host {host.name!r}: {error}")
        else:
            found.update({Place(host, str(answer[4][0])): None for answer in answers})
    if not found:
        raise failure
    return list(found)
