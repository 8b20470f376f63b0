"""What a source's release can tell is known before a table is copied from it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from config.errors import CopyRefused
from replicator.binlog.catalog import CatalogColumn, CatalogTable
from replicator.source import Identity, require_readable

FORM = CatalogTable("opendental", "form", (CatalogColumn("body", "json", True),), ())


@pytest.mark.parametrize(
    ("version", "refused"),
    [("5.7.44-log", True), ("8.0.13", True), ("8.0.14", False), ("9.7.4", False)],
)
def test_json_is_copied_from_servers_that_tell_its_kinds(version: str, refused: bool) -> None:
    with pytest.raises(CopyRefused, match=r"form\.body") if refused else nullcontext():
        require_readable(Identity(1, "", version), "form", FORM)


def test_other_columns_are_copied_from_any_server() -> None:
    plain = CatalogTable("opendental", "form", (CatalogColumn("id", "int", False),), ())
    require_readable(Identity(1, "", "5.5.62"), "form", plain)
