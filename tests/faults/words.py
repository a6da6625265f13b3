"""What is told in the same words of many faults."""

from __future__ import annotations

from tests.faults.activities import NAMES

REQUESTS = ("read", "write", "COMMIT", "sign-in", "health")
ANSWERED = dict.fromkeys(NAMES, "answered")


def no_connection(diagnosis: str) -> dict[str, str]:
    """Give the words where no connection can be made."""
    return {**dict.fromkeys(REQUESTS, f"503 {diagnosis}"), "migration": "exit 4", "backup": "exit 4"}


def lost(diagnosis: str) -> dict[str, str]:
    """Give the words where a connection is lost with a statement on its way, and another can be made.

    A transaction runs again; a single statement that the server may have run is never sent twice.
    """
    return {
        **dict.fromkeys(REQUESTS, f"503 {diagnosis}"),
        "write": "answered, at another attempt",
        "COMMIT": "500 transaction_resolution_unknown",
        "migration": "exit 6",
        "backup": "exit 16",
    }
