"""The whole page: a shell that stays, with style and script in it, and content that is fetched anew and replaced."""

import base64
from collections.abc import Sequence
from hashlib import sha256
from urllib.parse import quote

from shared import settings
from shared.db.drivers import Row
from shared.errors import ConfigurationError
from shared.health.report import Report
from shared.health.result import Verdict
from shared.page.history import History
from shared.page.script import SCRIPT
from shared.page.sections import footer, headline, sections
from shared.page.style import STYLE
from shared.page.words import shape
from shared.web.html import Child, Markup, e, verbatim

_COLOURS: dict[Verdict, str] = {"ok": "#1a7f4b", "warn": "#b26b00", "fail": "#c4281c", "unknown": "#6b7280"}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


# Only this style and this script; the one image is the icon. The script sends what a form holds, and no form sends
# itself.
POLICY = "; ".join(
    [
        "default-src 'none'",
        f"style-src {_hash(STYLE)}",
        f"script-src {_hash(SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)


def document(content: Markup) -> str:
    """Put content into the shell."""
    shell = e(
        "html",
        e(
            "head",
            e("meta", charset="utf-8"),
            e("title", "Database"),
            e("meta", name="viewport", content="width=device-width, initial-scale=1"),
            e("meta", name="color-scheme", content="light dark"),
            e("meta", name="robots", content="noindex"),
            e("link", rel="icon", href=_icon("unknown"), id="icon"),
            verbatim("style", STYLE),
        ),
        e(
            "body",
            e("a", "To the content", href="#main", class_="skip"),
            e("p", role="alert", id="banner", hidden=True),
            content,
            verbatim("script", SCRIPT),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{shell.text}"


def dashboard(report: Report, history: History, migrations: Sequence[Row] | None) -> Markup:
    """Write the content for the operator."""
    return _content(
        e(
            "header",
            e("p", "Database", class_="brand"),
            e("p", _environment(), class_="environment"),
            e("button", "Sign out", type="button", id="sign-out"),
        ),
        e("main", sections(report, history, migrations), id="main", tabindex="-1"),
        footer(),
        title=headline(report),
        verdict=report.status,
        is_signed_in=True,
    )


def door(*, may_be_signed_in: bool = False) -> Markup:
    """Write the form to sign in with.

    With `may_be_signed_in` the script looks once whether the operator is: the browser keeps the cookie back where a
    link on another site, as in an alert, led here.
    """
    form = e(
        "form",
        # For password managers, which keep a password with a name.
        e("input", type="text", name="username", value="operator", autocomplete="username", hidden=True),
        e("label", "Operator's token", for_="token"),
        e("input", type="password", id="token", name="token", autocomplete="current-password", required=True,
          aria_describedby="trouble token-hint", maxlength="1000", autofocus=True),
        e("p", "The value of OPERATOR_TOKEN. You stay signed in for 12 hours.", class_="hint", id="token-hint"),
        e("p", role="alert", id="trouble"),
        e("button", "Sign in", type="submit"),
        id="sign-in",
        method="post",
    )  # fmt: skip
    return _content(
        e(
            "main",
            e("p", "Database", class_="brand"),
            e("h1", "Sign in"),
            form,
            e("noscript", e("p", "This page needs its script.")),
            id="main",
            tabindex="-1",
            class_="door",
        ),
        title="Sign in",
        may_be_signed_in=may_be_signed_in,
    )


def closed() -> Markup:
    """Say that nobody may sign in, and what to set."""
    return _notice(
        "Nobody can sign in yet",
        e("p", e("code", "OPERATOR_TOKEN"), " is not set. Set it to 16 characters or more, such as the output of"),
        e("pre", e("code", "openssl rand -hex 32"), tabindex="0"),
        e("p", "and deploy or start again."),
    )


def misconfigured() -> Markup:
    """Say that settings are wrong; which, only the log tells, as anybody may read this."""
    return _notice(
        "The configuration is wrong", e("p", "A variable has a value that is not allowed. The log says which.")
    )


def _notice(title: str, *children: Child) -> Markup:
    main = e("main", e("p", "Database", class_="brand"), e("h1", title), children, id="main", tabindex="-1",
             class_="door")  # fmt: skip
    return _content(main, title=title)


def _content(
    *children: Child,
    title: str,
    verdict: Verdict = "unknown",
    is_signed_in: bool = False,
    may_be_signed_in: bool = False,
) -> Markup:
    return e(
        "div",
        children,
        id="page",
        data_title=f"{title} · Database",
        data_icon=_icon(verdict),
        data_signed_in=is_signed_in,
        data_look=may_be_signed_in,
    )


def _icon(verdict: Verdict) -> str:
    paint = f"fill='none' stroke='{_COLOURS[verdict]}' stroke-width='2' stroke-linecap='round'"
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><path {paint} d='{shape(verdict)}'/></svg>"
    return f"data:image/svg+xml,{quote(svg)}"


def _environment() -> str:
    try:
        return settings.get_settings().environment
    except ConfigurationError:
        return ""
