"""Backups of one database: made, listed, thinned out, verified and restored (docs/BACKUP.md).

A backup is a dump in pg_dump's custom format and, beside it, a manifest that is written last: a dump of ours without
one is incomplete.
"""
