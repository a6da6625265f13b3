"""pytest-alembic's own checks of the folder: one head, up, down and up again, metadata and migrations agree."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from pytest_alembic.tests import (
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

__all__ = [
    "test_model_definitions_match_ddl",
    "test_single_head_revision",
    "test_up_down_consistency",
    "test_upgrade",
]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def alembic_config() -> Config:
    """Configure Alembic as its own command does in the checkout."""
    return Config(toml_file=ROOT / "pyproject.toml")


@pytest.fixture
def alembic_engine(url: str) -> Iterator[Engine]:
    """Give the database that migrations/env.py finds in DATABASE_URL: a fresh one."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    yield engine
    engine.dispose()
