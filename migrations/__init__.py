"""Schema changes as timestamped .sql files in `versions/`, and the runner that applies them with Alembic."""
