"""From which value on a check warns and fails, and why: the one place for all of them."""

from shared.health.result import Threshold

MIN_MAJOR = 16  # of PostgreSQL: what this project is written for and tested with

ROUND_TRIP = Threshold(
    100.0,
    None,
    "Functions belong into the database's region, where it takes 1 ms; 100 ms is another continent",
)
POOL_IN_USE = Threshold(100.0, None, "The next caller waits for a connection")
CONNECTIONS = Threshold(
    70.0, 90.0, "A deploy doubles the instances for a moment; above 90 % the next burst is refused (53300)"
)
LONG_QUERY = Threshold(
    60.0, 3600.0, "No request of ours may take as long, so it is a report, a migration, or abandoned; for an hour it "
    "holds back vacuum"
)  # fmt: skip
BLOCKED = Threshold(
    5.0, 60.0, "People notice; a request of ours gives up after 10 s (lock_timeout), so after a minute it is no hiccup"
)
IDLE_IN_TRANSACTION = Threshold(
    60.0, 600.0, "The server ends ours after a minute at most; it holds locks and holds back vacuum all the while"
)
CACHE_HITS = Threshold(
    90.0, None, "What is used often should fit in memory; below, most waiting is for the disk", falling=True
)
CACHE_MIN_BLOCKS = 100_000  # blocks asked for (800 MB), before a ratio says anything

FOREIGN_KEY_MIN_ROWS = 1000  # rows of a table before reading it whole takes a millisecond
MISSING_INDEXES = Threshold(
    1,
    None,
    f"Deleting a row that is referred to reads the whole table; below {FOREIGN_KEY_MIN_ROWS} rows it does not matter",
)
INVALID_INDEXES = Threshold(1, None, "It costs writes and serves no query")
UNUSED_MIN_BYTES = 1024 * 1024
UNUSED_MIN_SCANS = 1000  # of its table, so that an index of a table that nobody reads is not blamed
UNUSED_INDEXES = Threshold(
    1, None, f"It costs writes and memory; only where it has 1 MB, and its table was read {UNUSED_MIN_SCANS} times "
    "without it"
)  # fmt: skip
DUPLICATE_INDEXES = Threshold(1, None, "One of them costs writes and memory for nothing")

DEAD_MIN_ROWS = 10_000
DEAD_ROWS = Threshold(
    30.0, None, f"Autovacuum begins at about 17 % (autovacuum_vacuum_scale_factor 0.2), so it does not keep up; from "
    f"{DEAD_MIN_ROWS} dead rows on"
)  # fmt: skip
WRAPAROUND_WARN = 150.0  # % of autovacuum_freeze_max_age
WRAPAROUND = Threshold(
    WRAPAROUND_WARN, 800.0, "At 100 % autovacuum begins by itself, and did not finish; it fails at vacuum_failsafe_age "
    "(800 % by default), where the server stops being considerate, a quarter before it takes no more writes"
)  # fmt: skip
SEQUENCES = Threshold(75.0, 90.0, "At 100 % every INSERT fails; changing the column's type takes planning")

REPLICATION_BYTES = Threshold(
    16 * 1024**2, 1024**3, "A standby that follows is less than a WAL segment (16 MB) behind; at 1 GB a failover loses "
    "much, or takes long"
)  # fmt: skip
SLOT_BYTES = Threshold(
    1, 10 * 1024**3, "A slot that nobody reads keeps WAL until the disk is full; 10 GB is much of a small disk"
)
CHECKPOINTS_MIN = 20  # checkpoints before a ratio says anything
CHECKPOINTS = Threshold(50.0, None, "More than half come before their time, because max_wal_size is too small")

SLOW_MIN_CALLS = 10
SLOW_STATEMENT = Threshold(
    1.0, None, f"A page makes several; on average over {SLOW_MIN_CALLS} calls or more, a second each is too long"
)
UNANALYZED_MIN_ROWS = 1000
BACKUP = Threshold(8.0, None, "A weekly schedule was missed; what was written since is in no backup")
NEVER_ANALYZED = Threshold(
    1, None, f"Without statistics the planner guesses; of a table with {UNANALYZED_MIN_ROWS} rows, badly"
)
