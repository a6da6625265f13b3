"""The real servers that tests run against: PostgreSQL, PgBouncer, certificates, and a wire proxy between them."""
