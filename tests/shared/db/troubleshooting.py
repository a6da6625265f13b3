"""The part of docs/TROUBLESHOOTING.md that is made of the table of diagnoses.

`python -m tests.shared.db.troubleshooting` writes it anew.
"""

from pathlib import Path

from shared.db.diagnosis import TABLE, UNKNOWN

PAGE = Path(__file__).resolve().parents[3] / "docs" / "TROUBLESHOOTING.md"
BEGIN = "<!-- made from shared/db/diagnosis.py: python -m tests.shared.db.troubleshooting -->"
END = "<!-- end -->"


def block() -> str:
    """Give the table of all diagnoses, in Markdown, with what a user's own names would replace in capitals."""
    lines = [BEGIN, "", "| Diagnosis | SQLSTATE | Cause | What to do |", "|---|---|---|---|"]
    for row in (*TABLE, UNKNOWN):
        cause, solutions = row.written({})
        cells = (f"`{row.code}`", ", ".join(row.sqlstates), cause, " ".join(_sentence(text) for text in solutions))
        lines.append("| " + " | ".join(cell.replace("|", r"\|").replace("*", r"\*") for cell in cells) + " |")
    return "\n".join([*lines, "", END])


def _sentence(text: str) -> str:
    return text if text.endswith((".", ";")) else text + "."


def current(page: str) -> str:
    """Give the block that a page has now."""
    return BEGIN + page.partition(BEGIN)[2].partition(END)[0] + END


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    PAGE.write_text(text.replace(current(text), block()), "utf-8")
