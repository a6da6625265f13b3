"""Which backups are kept: of each of the last days, weeks and months the newest."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ops.backup import manifest, storage
from ops.backup.manifest import Manifest
from ops.backup.storage import Place
from shared.errors import BackupError, ConfigurationError

_PERIODS = {"d": "%Y-%m-%d", "w": "%G-%V", "m": "%Y-%m"}


class Listed(NamedTuple):
    """A file that is, or would be, a backup; `manifest` is None where it is incomplete, `problem` says in which way."""

    name: str
    size: int
    manifest: Manifest | None
    problem: str | None


def parse(text: str) -> dict[str, int]:
    """Read a rule such as 7d,4w,12m: for how many days, weeks and months one backup each is kept."""
    parts = [re.fullmatch(r"(\d{1,4})([dwm])", part.strip()) for part in text.split(",")]
    rule = {part[2]: int(part[1]) for part in parts if part}
    if not all(parts) or len(rule) != len(parts) or not any(rule.values()):
        raise ConfigurationError(
            f"--keep {text} is not understood.", solutions=["Give days, weeks and months, such as 7d,4w,12m."]
        )
    return rule


def look(place: Place) -> list[Listed]:
    """List the backups of a place, oldest first, with those that are not whole."""
    sizes = place.sizes()
    found = []
    for name, size in sorted(sizes.items()):
        if name.endswith(manifest.MANIFEST):
            if name.removesuffix(".json") not in sizes:
                found.append(Listed(name, size, None, "a manifest without its dump"))
        elif name.endswith(manifest.DUMP):
            beside = manifest.manifest_name(name)
            if beside in sizes:
                try:
                    known = Manifest.parse(storage.read_all(place, beside), beside)
                except BackupError as error:
                    found.append(Listed(name, size, None, error.message))
                    continue
                short = known.size != size
                problem = f"{size} bytes of {known.size}" if short else None
                found.append(Listed(name, size, None if short else known, problem))
            elif manifest.series_in(name):
                found.append(Listed(name, size, None, "no manifest: interrupted, or copied without it"))
            else:
                found.append(Listed(name, size, None, "no manifest: not made by db backup"))
        elif name.endswith(f"{manifest.DUMP}.part"):
            found.append(Listed(name, size, None, "unfinished: under way, or interrupted"))
    return sorted(found, key=lambda listed: listed.manifest.taken_at if listed.manifest else "")


def superfluous(backups: Mapping[str, Manifest], rule: Mapping[str, int]) -> list[str]:
    """Name those of one series that a rule does not keep. The newest, and the newest verified one, always stay."""
    newest_first = sorted(backups, key=lambda name: backups[name].time, reverse=True)
    kept = set(newest_first[:1]) | set(_first(name for name in newest_first if backups[name].verified_at))
    for unit, count in rule.items():
        periods: dict[str, str] = {}
        for name in newest_first:
            periods.setdefault(backups[name].time.strftime(_PERIODS[unit]), name)
        kept |= set(list(periods.values())[:count])
    return [name for name in reversed(newest_first) if name not in kept]


def thin_out(place: Place, dump: str, rule: Mapping[str, int]) -> list[str]:
    """Remove what the rule does not keep from the series of `dump`; name what was removed.

    A manifest goes first: killed in between, this leaves a dump that is listed as incomplete.
    """
    series = manifest.series_in(dump)
    whole = {
        listed.name: listed.manifest
        for listed in look(place)
        if listed.manifest and manifest.series_in(listed.name) == series
    }
    removed = superfluous(whole, rule) if series else []
    for name in removed:
        place.remove(manifest.manifest_name(name))
        place.remove(name)
    return removed


def _first(names: Iterable[str]) -> list[str]:
    return next(([name] for name in names), [])
