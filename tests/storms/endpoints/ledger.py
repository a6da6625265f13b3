"""Enter a number into a ledger, which has no key that would hide a second entry."""

from shared import db
from shared.web import Endpoint, lambda_handler

endpoint = Endpoint("/api/ledger/{instance}/{number}")


@endpoint.post
def enter(instance: int, number: int) -> dict[str, int]:
    """Run a transaction, again where that is safe."""

    def unit(tx: db.Transaction) -> None:
        entry = {"instance": instance, "number": number}
        tx.execute("INSERT INTO ledger (instance, number) VALUES (%(instance)s, %(number)s)", entry)
        tx.execute("UPDATE account SET entries = entries + 1 WHERE instance = %(instance)s", entry)

    db.run_transaction(unit)
    return {"number": number}


handler = lambda_handler(endpoint)
