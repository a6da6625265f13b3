"""The part of docs/HEALTH.md that is made of the checks. `python -m tests.shared.health.page` writes it anew."""

from pathlib import Path

from shared.health.result import Check
from shared.health.topics import TOPICS
from shared.health.units import bytes_text

PAGE = Path(__file__).resolve().parents[3] / "docs" / "HEALTH.md"
BEGIN = "<!-- made from shared/health/: python -m tests.shared.health.page -->"
END = "<!-- end -->"


def block() -> str:
    """Give the table of all checks, in Markdown."""
    lines = [BEGIN, "", "| Check | What it looks at | Warns from | Fails from | Why |", "|---|---|---|---|---|"]
    for topic, checks in TOPICS.items():
        lines.append(f"| **{topic}** | | | | |")
        for check in checks:
            limits = check.threshold
            reason = f"{limits.reason}." if limits else ""
            warn, fail = (limits.warn, limits.fail) if limits else (None, None)
            cells = (f"`{check.name}`", f"{check.meaning}.", _limit(check, warn), _limit(check, fail), reason)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", END])


def _limit(check: Check, value: float | None) -> str:
    if value is None:
        return ""
    units = {"bytes": bytes_text(value), "indexes": f"{value:g}", "tables": f"{value:g}"}
    shown = units.get(str(check.unit), f"{value:g} {check.unit}")
    return f"{shown} and less" if check.threshold and check.threshold.falling else shown


def current(page: str) -> str:
    """Give the block that a page has now."""
    return BEGIN + page.partition(BEGIN)[2].partition(END)[0] + END


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    PAGE.write_text(text.replace(current(text), block()), "utf-8")
