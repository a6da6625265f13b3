"""A place for backups of this machine: what is written appears whole, or not at all."""

from pathlib import Path

import pytest

from ops.backup.storage import Folder
from shared.errors import LocalEnvironmentError


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.dump.part").symlink_to("/dev/full")  # where every byte is one too many
    with pytest.raises(LocalEnvironmentError, match="is full") as caught, Folder(tmp_path).write("a.dump") as file:
        file.write(b"x" * 1_000_000)
    assert str(tmp_path) in caught.value.message
    assert caught.value.solutions
    assert not list(tmp_path.iterdir())
