"""One of several instances that are attacked: try wrong passwords, and print the statuses as JSON."""

import json
import sys

import pytest

from shared import db
from tests import access

if __name__ == "__main__":
    with access.cheap_hashes(), pytest.MonkeyPatch.context() as monkeypatch:
        browser = access.browser("server", monkeypatch)
        json.dump([browser.sign_in("wrong").status for _ in range(int(sys.argv[1]))], sys.stdout)
        db.close_db()
