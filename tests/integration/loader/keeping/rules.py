"""The tables.toml of a loader under test, and another one in its place."""

from __future__ import annotations

from pathlib import Path

from config.settings import Settings

from ..conftest import Harness


def with_rules(settings: Settings, folder: Path, text: str) -> Settings:
    """Settings whose tables.toml, in `folder`, says this; names that are gone do not stand long."""
    path = folder / "tables.toml"
    path.write_text(text)
    tuning = settings.loader.model_copy(update={"rename_seconds": 0.2, "replacement_seconds": 1.0})
    return settings.model_copy(update={"tables_file": path, "loader": tuning})


def change_rules(harness: Harness, text: str) -> None:
    """Start the loader again under other rules."""
    harness.settings.tables_file.write_text(text)
    harness.restart()
    harness.loader.step()
    harness.catch_up()
