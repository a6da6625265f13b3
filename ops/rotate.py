"""`db rotate`: a new password, in force on the server before the old one is let go of.

The order bears kill -9 anywhere: the new password is kept (vaults.py), then the server gets its verifier, then it is
tried, then it becomes the one in force. Where that stopped, the next run finds what is pending, tries which of the two
the server takes, and goes on from there.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ops.secret import make
from ops.vaults import File, Secret, Vault, with_login
from shared import deadline
from shared.db import scram
from shared.db.aws import ParameterStore, SecretsManager
from shared.db.connector import Connector, is_refusal
from shared.db.drivers import Connection
from shared.db.providers import provider_of, role_of
from shared.db.session import identifier
from shared.db.session import limits as session_limits
from shared.db.url import DatabaseURL
from shared.errors import (
    DatabaseError,
    DatabaseUnavailable,
    DirectConnectionRequired,
    InvalidPassword,
    LockTimeout,
    Refused,
)
from shared.settings import DATABASE_URLS, DIRECT_URLS, Settings, get_settings

ROOT = Path(__file__).resolve().parent.parent
_KEY = int.from_bytes(b"rotate!!")  # of the advisory lock: one rotation at a time in a database
_TAKES = 10.0  # seconds for a pooler to hear of the new password
_PAUSE = 0.25
_CLONE = "_clone"
Report = Callable[[str], None]


def run(
    alternate: Annotated[
        bool, typer.Option("--alternate", help="Leave the user as it is, and change to its double, NAME_clone.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also where new connections fail until you have changed DATABASE_URL.")
    ] = False,
) -> None:
    """Replace the database password: make one, set it, try it, and put it where the application reads it."""
    settings = get_settings()
    rotate(settings, vault_of(settings), alternate=alternate, force=force, report=typer.echo)


def vault_of(settings: Settings) -> Vault:
    """Find where the password is kept. Raises Refused where there is none to rotate."""
    if settings.database_iam_auth:
        raise Refused(
            "DATABASE_IAM_AUTH is true: there is no password, and tokens last 15 minutes.",
            solutions=["Set DATABASE_IAM_AUTH=false, and DATABASE_URL with the password, for a role that has one."],
        )
    store = settings.password_store.store if settings.password_store else None
    if isinstance(store, SecretsManager):
        return Secret(store.secret)
    url = settings.database_url
    name = re.sub(r"[^\w.-]", "_", f"{role_of(url).removesuffix(_CLONE)}-{url.host}-{url.port}-{url.database}")
    path = ROOT / ".data" / f"rotation-{name}.url"
    if isinstance(store, ParameterStore):
        step = f"aws ssm put-parameter --overwrite --type SecureString --name {store.parameter} --value file://{path}"
        return File(store.parameter, path, store.current, [step])
    variable = next((one for one in DATABASE_URLS if os.environ.get(one, "").strip()), "DATABASE_URL")
    text = os.environ.get(variable, "").strip() or url.render(password=True)
    steps = [
        f".env, or the service's own file: put the line of {path} behind {variable}=, and restart.",
        f"Vercel: vercel env rm {variable} production --yes && vercel env add {variable} production < {path} && "
        "vercel --prod",
    ]
    return File(variable, path, lambda: text, steps)


def rotate(settings: Settings, vault: Vault, *, alternate: bool, force: bool, report: Report) -> None:
    """Rotate, or finish what an earlier run began.

    Raises Refused where requests would fail meanwhile and `force` is not given, InvalidPassword where the server takes
    neither password, LockTimeout where another rotation is running, and what connecting raises.
    """
    old, new = _kept(settings, vault)
    with closing(_session(settings, old, new, alternate)) as connection, _alone(connection):
        old, new = _kept(settings, vault)  # another run may have ended meanwhile
        if new == old:
            vault.drop()
            report(f"{vault.name} holds the new password already: an earlier rotation is complete now.")
            return
        if new is None:
            new = _stage(settings, vault, _double(old) if alternate else old.user, force)
        else:
            report("An earlier rotation was interrupted, or waits for you: it goes on with the password that it made.")
        _put_in_force(settings, vault, connection, old, new, report)


def _kept(settings: Settings, vault: Vault) -> tuple[DatabaseURL, DatabaseURL | None]:
    pending = vault.pending()
    return settings.url_from(vault.current()), None if pending is None else settings.url_from(pending)


def _stage(settings: Settings, vault: Vault, user: str, force: bool) -> DatabaseURL:
    """Make a password for this user and keep it as pending."""
    text = vault.current().strip()
    if vault.leaves_a_gap and user == settings.url_from(text).user and settings.is_production_like and not force:
        raise Refused(
            f"Between the server and {vault.name} nobody changes the password in one moment: new connections would "
            "fail until you have changed it and deployed.",
            solutions=[
                "db rotate --alternate changes to a second user, and the first stays good meanwhile.",
                "DATABASE_URL_SECRET_ARN lets AWS Secrets Manager keep the password: then nothing fails.",
                "--force does it all the same.",
            ],
        )
    changed = with_login(text, user, make())
    vault.stage(changed)
    return settings.url_from(changed)


def _put_in_force(
    settings: Settings, vault: Vault, connection: Connection, old: DatabaseURL, new: DatabaseURL, report: Report
) -> None:
    is_double = new.user != old.user
    if not is_double:
        _set_password(connection, role_of(new), new.password or "")
    elif not _is_let_in(settings, new):  # else an earlier run made it: that takes an administrator only once
        _make_double(connection, role_of(old), role_of(new), new.password or "")
    report(f"The server has the new password of {role_of(new)}.")
    trouble = _trouble(settings, new)
    if trouble is not None:
        if not is_double:
            _set_password(connection, role_of(old), old.password or "")
        vault.drop()
        kept = "The old password was put back." if not is_double else "The old user is still in force."
        raise type(trouble)(
            f"The new password was set, and logging in with it failed: {trouble.message} {kept}",
            solutions=["A pooler with a list of passwords of its own (auth_file) must get auth_query instead."],
            sqlstate=trouble.sqlstate,
        )
    report("Logging in with it works.")
    _finish(vault, old, new, report)


def _finish(vault: Vault, old: DatabaseURL, new: DatabaseURL, report: Report) -> None:
    steps = vault.promote()
    for name in DIRECT_URLS:
        if new.user == old.user and _holds_password_of(role_of(new), name):
            report(f"{name} holds the old password: change it, or leave it out, and it logs in as DATABASE_URL does.")
    if not steps:
        report(f"{vault.name} holds it. Running instances read it when the server refuses the old one.")
        return
    still = f"{role_of(old)} stays good until then." if new.user != old.user else "New connections fail until then."
    report(f"What is left for you; {still}")
    for step in steps:
        report(f"  - {step}")
    report("Then run db rotate once more: it removes the file when it is not needed any longer.")


def _holds_password_of(role: str, variable: str) -> bool:
    text = os.environ.get(variable, "").strip()
    url = DatabaseURL.parse(text, variable=variable) if text else None
    return url is not None and url.password is not None and role_of(url) == role


def _double(url: DatabaseURL) -> str:
    """Name the other one of two users; behind Supabase's pooler the project's name stays behind it."""
    role = role_of(url)
    other = role.removesuffix(_CLONE) if role.endswith(_CLONE) else role + _CLONE
    return other + url.user.removeprefix(role)


# -- on the server ----------------------------------------------------------------------------------


def _session(settings: Settings, old: DatabaseURL, new: DatabaseURL | None, alternate: bool) -> Connection:
    """Open a session on the server itself that may set the password: the role's own, or DIRECT_URL's for a double."""
    is_double = alternate if new is None else new.user != old.user
    direct = settings.direct_database_url
    if direct is None:
        raise DirectConnectionRequired(
            f"DATABASE_URL leads to a pooler ({provider_of(old).name}), and a password is set on the server itself.",
            solutions=["Set DIRECT_URL to the provider's direct connection string, beside DATABASE_URL."],
        )
    if is_double and role_of(direct) not in (role_of(old), role_of(new or old)):
        return _open(settings, direct)
    refusal: DatabaseUnavailable | None = None
    for url in (old,) if new is None else (old, new):
        user = direct.user if role_of(direct) == role_of(url) else role_of(url)
        try:
            return _open(settings, replace(direct, user=user, password=url.password))
        except DatabaseUnavailable as error:
            if not is_refusal(error):
                raise
            refusal = refusal or error
    assert refusal is not None
    if new is None:
        raise refusal
    raise InvalidPassword(
        "The server takes neither the password in force nor the one that is pending.",
        solutions=[
            "As an administrator give the role the pending one, then run db rotate again:",
            f"ALTER ROLE {identifier(role_of(new))} PASSWORD '{scram.verifier(new.password or '')}';",
        ],
        sqlstate=refusal.sqlstate,
    )


def _is_let_in(settings: Settings, url: DatabaseURL) -> bool:
    try:
        _open(settings, url).close()
    except DatabaseUnavailable as error:
        if not is_refusal(error):
            raise
        return False
    return True


def _open(settings: Settings, url: DatabaseURL) -> Connection:
    limits = session_limits(request_timeout=60, idle_timeout=60)
    return Connector(url, driver=settings.database_driver, limits=limits, refresh=lambda: url).open()


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    if not connection.fetch("SELECT pg_try_advisory_lock(%(key)s) AS got", {"key": _KEY})[0]["got"]:
        raise LockTimeout("Another rotation is running.", solutions=["Wait for it to end, and run this again."])
    yield  # the lock ends with the session


def _set_password(connection: Connection, role: str, password: str) -> None:
    # The verifier: the password itself would be in the server's log, and in pg_stat_statements. An old password that a
    # person chose may hold characters that only the server knows how to prepare.
    written = scram.verifier(password) if password.isascii() and password.isprintable() else password
    quoted = written.replace("'", "''")
    connection.execute(f"ALTER ROLE {identifier(role)} PASSWORD '{quoted}'")


def _make_double(connection: Connection, role: str, double: str, password: str) -> None:
    """Let the double log in with this password, and do what the role may."""
    try:
        known = connection.fetch("SELECT FROM pg_roles WHERE rolname = %(name)s", {"name": double})
        if not known:
            connection.begin("BEGIN")
            connection.execute(f"CREATE ROLE {identifier(double)} LOGIN PASSWORD '{scram.verifier(password)}'")
            connection.execute(f"GRANT {identifier(role)} TO {identifier(double)}")
            for name, value in _defaults(connection, role):
                quoted = value.replace("'", "''")
                connection.execute(f"ALTER ROLE {identifier(double)} SET {name} = '{quoted}'")
            connection.end("COMMIT")
        else:
            _set_password(connection, double, password)
    except DatabaseError as error:
        if error.sqlstate != "42501":
            raise
        raise Refused(
            f"The role of DIRECT_URL may not make or change {double}.",
            solutions=["Set DIRECT_URL to an administrator's: a role with CREATEROLE that is a member of the other."],
            sqlstate=error.sqlstate,
        ) from error


def _defaults(connection: Connection, role: str) -> Iterator[tuple[str, str]]:
    """Give the settings that ALTER ROLE gave the role: members do not inherit them."""
    rows = connection.fetch(
        "SELECT unnest(setconfig) AS setting FROM pg_db_role_setting"
        " WHERE setdatabase = 0 AND setrole = (SELECT oid FROM pg_roles WHERE rolname = %(name)s)",
        {"name": role},
    )
    for row in rows:
        name, _, value = row["setting"].partition("=")
        if name != "search_path":  # a list, which one quoted value is not
            yield name, value


def _trouble(settings: Settings, url: DatabaseURL) -> DatabaseUnavailable | None:
    """Log in as the application will; give what refuses it still, after the time that poolers take."""
    if provider_of(url).pooler == "rds_proxy":
        return None  # it knows passwords by the secret's current version only
    until = time.monotonic() + _TAKES
    while True:
        try:
            with deadline.within(_TAKES):
                _open(settings, url).close()
        except DatabaseUnavailable as error:
            if time.monotonic() + _PAUSE > until:
                return error
            time.sleep(_PAUSE)
        else:
            return None
