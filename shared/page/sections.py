"""The page's sections, from the report, the samples and the ledger. What is missing is said, and stops nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby

from shared import __version__, settings
from shared.db.drivers import Row
from shared.errors import ConfigurationError, Error
from shared.health.report import Report
from shared.health.result import Result, Verdict
from shared.health.thresholds import CONNECTIONS
from shared.health.units import bytes_text, cell
from shared.page import charts
from shared.page.checks import detailed, session, tree, what_to_do, wrong
from shared.page.history import History, Span
from shared.page.words import icon, percent_text, prose, times, value_text
from shared.web.html import Markup, e, group

_TILES = ("connection", "connections", "pool", "database_size", "cache_hit_ratio", "schema")
_VERDICTS: tuple[tuple[Verdict, str], ...] = (
    ("fail", "failing"), ("warn", "worth a look"), ("ok", "well"), ("unknown", "not known"),
)  # fmt: skip
_WORTH_SHOWING = 1.0  # seconds that a session does something


def sections(report: Report, history: History, migrations: Sequence[Row] | None) -> Iterator[Markup]:
    """Write them in the order in which an operator asks: how is it, what is wrong, since when, who, what else."""
    yield _verdict(report)
    if report.error is not None:
        yield _no_connection(report.error)
        yield _over_time(history)
        return
    found = {result.name: result for result in report.results}
    yield from _wrong(report.results)
    yield e("ul", [_tile(found[name]) for name in _TILES if _has_value(found.get(name))], class_="tiles", id="tiles")
    yield _over_time(history)
    yield _sessions(found)
    yield _migrations(found.get("schema"), migrations)
    yield _checks(report.results)


def headline(report: Report) -> str:
    """Say how it is in a few words: the page's heading, and the title of its window."""
    fails, warns = (sum(result.verdict == verdict for result in report.results) for verdict in ("fail", "warn"))
    if isinstance(report.error, ConfigurationError):
        return "The configuration is wrong"
    if report.error is not None:
        return "The database cannot be reached"
    if fails:
        return "One thing is failing" if fails == 1 else f"{fails} things are failing"
    if warns:
        return "One thing is worth a look" if warns == 1 else f"{warns} things are worth a look"
    return "Nothing could be looked at" if report.status == "fail" else "All is well"


def _verdict(report: Report) -> Markup:
    counts = [(sum(result.verdict == verdict for result in report.results), words) for verdict, words in _VERDICTS]
    summary = ", ".join(f"{count} {words}" for count, words in counts if count)
    said = e(
        "div",
        e("h1", headline(report), id="verdict"),
        e("p", f"Of {len(report.results)} checks: {summary}.") if report.error is None else None,
        role="status",
        aria_live="polite",
        aria_atomic="true",
        id="said",
    )
    looked = e("p", "Looked at ", times(datetime.fromisoformat(report.time), "second"), class_="hint")
    return e("div", icon(report.status), e("div", said, looked), class_=f"verdict {report.status}", id="top")


def _no_connection(error: Error) -> Markup:
    from shared.db.diagnosis import explain

    found = explain(error)
    return _section(
        "down",
        "What to do",
        e("p", e("code", found.code), " ", found.cause, class_="summary"),
        e("ul", [e("li", prose(solution)) for solution in found.solutions], class_="advice"),
        e("p", e("code", "db doctor"), " with the same DATABASE_URL looks further. This page keeps looking, too."),
        class_="wrong fail",
    )


def _wrong(results: Iterable[Result]) -> Iterator[Markup]:
    found = [result for verdict in ("fail", "warn") for result in results if result.verdict == verdict]
    if found:
        yield _section("attention", "What to do", [wrong(result) for result in found])


def _has_value(result: Result | None) -> bool:
    return result is not None and result.value is not None


def _tile(result: Result) -> Markup:
    value = value_text(result)
    mark = icon(result.verdict) if result.verdict != "ok" else None
    link = e("a", e("span", result.title, class_="name"), e("span", value, mark, class_="now"),
             href=f"#check-{result.name}")  # fmt: skip
    return e("li", link, class_=result.verdict, id=f"tile-{result.name}")


# -- over time --------------------------------------------------------------------------------------


def _over_time(history: History) -> Markup:
    if not any(span.points for span in history.spans):
        return _section("history", "Over time", _no_samples(history.trouble))
    choices = [_choice(span, is_first=span is history.spans[0]) for span in history.spans]
    return _section(
        "history",
        "Over time",
        e("fieldset", e("legend", "Show the last", class_="unseen"), choices, class_="choices"),
        [_span(span) for span in history.spans],
    )


def _no_samples(trouble: str | None) -> Markup:
    match trouble:
        case "42P01":  # undefined_table
            text = "There is no table health_samples. Run `db migrate`."
        case "42501":  # insufficient_privilege
            text = "The table health_samples may not be read by this role. GRANT SELECT ON health_samples to it."
        case "database_unavailable":
            text = "The samples are in the database, and will be here once it answers."
        case None:
            text = "No sample yet. Each periodic check keeps one: docs/HEALTH.md tells how it is called."
        case _:
            text = f"The samples could not be read: {trouble}."
    return e("p", prose(text), class_="none")


def _choice(span: Span, *, is_first: bool) -> Markup:
    id = f"range-{span.name}"
    return group(
        e("input", type="radio", name="range", id=id, checked=is_first),
        e("label", span.title, for_=id),
    )


def _span(span: Span) -> Markup:
    if not span.points:
        return e("div", e("p", "No sample in this time.", class_="none"), class_=f"span {span.name}", id=span.name)
    return e(
        "div",
        charts.strip(span, f"{span.name}-verdict"),
        charts.line(span, f"{span.name}-connections", "Connections", lambda point: point.connections,
                    charts.percent_scale, percent_text, CONNECTIONS),
        charts.line(span, f"{span.name}-size", "Database size", lambda point: point.database_size,
                    charts.bytes_scale, bytes_text),
        charts.line(span, f"{span.name}-pool", "Pool in use", lambda point: point.pool,
                    charts.percent_scale, percent_text),
        charts.table(span),
        class_=f"span {span.name}",
        id=span.name,
    )  # fmt: skip


# -- sessions ---------------------------------------------------------------------------------------


def _sessions(found: dict[str, Result]) -> Markup:
    blocked = found.get("blocked_sessions")
    return _section(
        "sessions",
        "Sessions",
        e("h3", "Who waits for whom"),
        (tree(blocked.rows) or e("p", blocked.summary, class_="none")) if blocked is not None else None,
        _at_it("Long-running queries", found.get("long_running_queries"), "running_seconds", "runs"),
        _at_it("Idle in transaction", found.get("idle_in_transaction"), "idle_seconds", "idle"),
    )


def _at_it(title: str, result: Result | None, key: str, words: str) -> Markup | None:
    """Show the sessions that do something for long enough to be seen here twice."""
    if result is None:
        return None
    rows = [row for row in result.rows if (row.get(key) or 0) >= _WORTH_SHOWING]
    shown: Markup = e("p", "None." if result.verdict == "ok" else result.summary, class_="none")
    if rows:
        items = [e("li", session(row, f"{words} for {cell('_seconds', row[key])}")) for row in rows]
        shown = e("ul", items, class_="tree")
    return group(e("h3", title), shown)


# -- the rest ---------------------------------------------------------------------------------------


def _migrations(schema: Result | None, migrations: Sequence[Row] | None) -> Markup:
    table: Markup | None = e("p", "The ledger of applied migrations cannot be read.", class_="none")
    if migrations is not None:
        names = ("Migration", "Applied", "By", "From")
        rows = [
            e(
                "tr",
                e("th", e("bdi", row["name"]), scope="row"),
                e("td", times(row["applied_at"], "day")),
                e("td", e("bdi", row["applied_by"])),
                e("td", e("bdi", row["applied_from"])),
            )
            for row in migrations
        ]
        head = e("thead", e("tr", [e("th", name, scope="col") for name in names]))
        table = e("div", e("table", head, e("tbody", rows)), class_="box", id="ledger", tabindex="0", role="region",
                  aria_label="Applied last: table") if rows else None  # fmt: skip
    return _section(
        "migrations",
        "Migrations",
        group(e("p", schema.summary), what_to_do(schema, "migrations")) if schema is not None else None,
        table,
    )


def _checks(results: Sequence[Result]) -> Markup:
    topics = [
        e("section", e("h3", topic.capitalize(), id=f"topic-{topic}"), [detailed(result) for result in of_topic],
          class_="topic", id=f"topic-{topic}-checks", aria_labelledby=f"topic-{topic}")
        for topic, of_topic in groupby(results, lambda result: result.topic)
    ]  # fmt: skip
    return _section("checks", "All checks", topics)


def footer() -> Markup:
    """Say what this is, and what it leaves out."""
    try:
        commit = settings.get_settings().commit
    except ConfigurationError:
        commit = None
    version = f"Version {__version__}" + (f", commit {commit[:12]}" if commit else "")
    return e(
        "footer",
        e("p", f"{version}. It looks again every 10 seconds while it is in sight. Statements are without their data."),
    )


def _section(id: str, title: str, *children: Markup | list[Markup] | None, class_: str | None = None) -> Markup:
    return e("section", e("h2", title, id=f"{id}-title"), children, id=id, class_=class_,
             aria_labelledby=f"{id}-title")  # fmt: skip
