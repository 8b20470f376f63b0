"""Which tables are carried: `tables.toml` in, a yes or no for each name out.

`TableRules` is pure; only `load_table_rules` reads the file. The words are
OpenDental's and the operator's: a table is *carried* through both legs or by
neither, so that the replica and `raw` never differ in what they hold.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path

from config.errors import ConfigError
from config.keeping import KeepingRules, read_keeping
from config.privacy import PrivacyRules, read_privacy

DEFAULT_TABLES_FILE = Path(__file__).with_name("tables.toml")

# Names that the pipeline uses on the replica for itself; a source's table of such a name
# would collide with them.
OWN_TABLES = ("etl_*", "_resync_*", "_old_*")


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    alternatives = [translate(pattern.lower()) for pattern in patterns]
    return re.compile("|".join(alternatives) or r"(?!)")


@dataclass(frozen=True, slots=True)
class TableRules:
    """Glob patterns, case ignored: carried is what `include` names and `exclude` does not."""

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ("tempdash*", "tempehrmeasure*")
    privacy: PrivacyRules = field(default_factory=PrivacyRules)
    keeping: KeepingRules = field(default_factory=KeepingRules)
    _included: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _excluded: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_included", _any_of(self.include))
        object.__setattr__(self, "_excluded", _any_of((*self.exclude, *OWN_TABLES)))

    def carries(self, table: str) -> bool:
        """Whether the pipeline carries the table of this (unqualified) name."""
        name = table.lower()
        return bool(self._included.match(name)) and not self._excluded.match(name)


def load_table_rules(path: Path) -> TableRules:
    """Read `path`, or raise a ConfigError that lists everything wrong with it."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(
            f"REPLICATOR_TABLES={path}: {exc.strerror}",
            "Point REPLICATOR_TABLES at a tables.toml, or unset it for the packaged one.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: not valid TOML: {exc}", f"Mend {path}.") from None
    return _rules(document, path)


def _rules(document: Mapping[str, object], path: Path) -> TableRules:
    known = ("tables", "privacy", "mask", "table")
    allowed = "[tables], [mask.<table>], [table.<table>], and above them privacy"
    faults = [_unknown(key, path, allowed) for key in document if key not in known]
    section = document.get("tables", {})
    if not isinstance(section, dict):
        section = {}
        faults.append(f"{path}: tables must be a section, [tables]")
    privacy = read_privacy(document.get("privacy"), document.get("mask"), str(path), faults)
    keeping = read_keeping(document.get("table"), str(path), faults)
    patterns: dict[str, tuple[str, ...]] = {}
    for key, value in section.items():
        if key not in ("include", "exclude"):
            above = " (privacy stands above the first section)" if key == "privacy" else ""
            faults.append(_unknown(f"tables.{key}", path, "include, exclude") + above)
        elif not _is_list_of_names(value):
            faults.append(f"{path}: tables.{key} must be a list of non-empty strings")
        else:
            patterns[key] = tuple(value)
    if faults:
        raise ConfigError("\n".join(faults), f"Mend {path}.", tuple(faults))
    return TableRules(privacy=privacy, keeping=keeping, **patterns)


def _unknown(key: str, path: Path, allowed: str) -> str:
    return f"{path}: unknown key {key}; allowed: {allowed}"


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)
