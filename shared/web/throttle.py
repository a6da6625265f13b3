"""Count how often somebody tries a password, for all instances together, and refuse where that is too often.

Three counts, each for 15 minutes from its first attempt: one account from one address, everything from one address, and
one account from everywhere. What the first refuses the others do not count, so that one address alone cannot lock
an account for all.
"""

from shared import db
from shared.web.client_address import network_of
from shared.web.problem import Problem

MINUTES = 15
ACCOUNT_FROM_ADDRESS = 10  # attempts in that time
ADDRESS = 100
ACCOUNT = 100

# One statement, so that attempts at the same moment are all counted, whichever instances and pooled connections they
# come through. Everybody locks the rows in the order of `n`.
_COUNT = """
WITH wanted AS (
    SELECT n, most, sha256(convert_to(n || ' ' || what, 'UTF8')) AS key
    FROM unnest(ARRAY[%(network)s || ' ' || lower(%(email)s), %(network)s, lower(%(email)s)], %(most)s::int[])
        WITH ORDINALITY AS w (what, most, n)
), first AS (
    INSERT INTO throttles AS t (key, attempts, expires_at)
    SELECT key, 1, now() + make_interval(mins => %(minutes)s) FROM wanted WHERE n = 1
    ON CONFLICT (key) DO UPDATE SET
        attempts = CASE WHEN t.expires_at > now() THEN t.attempts + 1 ELSE 1 END,
        expires_at = CASE WHEN t.expires_at > now() THEN t.expires_at ELSE excluded.expires_at END
    RETURNING key, attempts, expires_at
), others AS (
    INSERT INTO throttles AS t (key, attempts, expires_at)
    SELECT w.key, 1, now() + make_interval(mins => %(minutes)s)
    FROM wanted AS w, wanted AS w1 JOIN first USING (key)
    WHERE w.n > 1 AND first.attempts <= w1.most
    ORDER BY w.n
    ON CONFLICT (key) DO UPDATE SET
        attempts = CASE WHEN t.expires_at > now() THEN t.attempts + 1 ELSE 1 END,
        expires_at = CASE WHEN t.expires_at > now() THEN t.expires_at ELSE excluded.expires_at END
    RETURNING key, attempts, expires_at
)
SELECT key, attempts, attempts > most AS refused, ceil(extract(epoch FROM expires_at - now()))::int AS seconds
FROM (SELECT * FROM first UNION ALL SELECT * FROM others) AS counted JOIN wanted USING (key)
ORDER BY n
"""

# ARRAY, as it is read once. What stands in IN the planner may run again for each row of a nested loop, and then
# FOR UPDATE passes over what was deleted so far, up to the last row of the table.
_CLEAN_UP = """
WITH old AS (
    DELETE FROM sessions WHERE id = ANY (ARRAY(
        SELECT id FROM sessions WHERE expires_at < now() ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED
    ))
)
DELETE FROM throttles WHERE key = ANY (ARRAY(
    SELECT key FROM throttles WHERE expires_at < now() ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED
))
"""


class Attempt:
    """An attempt that was counted."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = keys

    def forgive(self, tx: db.Transaction) -> None:
        """Count it no more: the password was right."""
        tx.execute_many(
            "UPDATE throttles SET attempts = attempts - 1 WHERE key = %(key)s AND attempts > 0",
            [{"key": key} for key in self._keys],
        )


def count(email: str, address: str | None) -> Attempt:
    """Count an attempt on an account from an address, before the password is looked at.

    Raises Problem 429 with Retry-After where there were too many.
    """
    counted = db.fetch_all(
        _COUNT,
        {
            "email": email,
            "network": network_of(address),
            "most": [ACCOUNT_FROM_ADDRESS, ADDRESS, ACCOUNT],
            "minutes": MINUTES,
        },
    )
    if counted[0]["attempts"] == 1:
        db.execute(_CLEAN_UP)  # who adds rows takes old ones away, so neither table grows with what is over
    waits = [row["seconds"] for row in counted if row["refused"]]
    if waits:
        raise Problem(429, "Too many attempts. Try again later.", headers={"Retry-After": str(max(waits))})
    return Attempt([row["key"] for row in counted])
