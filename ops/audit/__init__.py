"""`db audit`: the guide's security list, asked of the live server. It changes nothing, and needs no rights."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

from ops.audit import connection, limits, password, rights
from ops.audit.finding import Finding, Look, Subject
from shared import deadline
from shared.db import drivers
from shared.db.drivers import Connection
from shared.db.providers import role_of
from shared.db.url import DatabaseURL
from shared.errors import DatabaseError
from shared.settings import Settings

LOOKS = (*connection.LOOKS, *password.LOOKS, *rights.LOOKS, *limits.LOOKS)
_TIME = 10.0  # seconds for each look
_CONNECT_TIMEOUT = 15.0  # seconds; a database at rest wakes up


def examine(settings: Settings) -> Iterator[Finding]:
    """Give each finding as it is made. Raises ConfigurationError and DatabaseUnavailable.

    What the application's role may not see is asked as DIRECT_URL's role, where that is another; what that may not see
    either is a finding too.
    """
    url = settings.database_url
    # Past a pooler: that would show its own connection's encryption, not ours.
    direct = settings.direct_database_url or url
    own = direct if role_of(direct) == role_of(url) else replace(direct, user=role_of(url), password=url.password)
    with ExitStack() as stack:
        subjects = [
            Subject(stack.enter_context(closing(_open(settings, one))), settings, url, direct)
            for one in ((own,) if own == direct else (own, direct))
        ]
        for name, look in LOOKS:
            yield _found(name, look, subjects)


def _open(settings: Settings, url: DatabaseURL) -> Connection:
    # Without our own start-up options, which would hide what is in force for others.
    return drivers.connect(url, settings.database_driver, connect_timeout=_CONNECT_TIMEOUT)


def _found(name: str, look: Look, subjects: list[Subject]) -> Finding:
    refusal = ""
    for subject in subjects:
        try:
            with deadline.within(_TIME):
                return look(name, subject)
        except DatabaseError as error:
            refusal = refusal or error.message
    return Finding(name, "unseen", f"The server does not show it to this role: {refusal}")
