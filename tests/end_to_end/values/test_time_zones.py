"""A practice's server that does not run in UTC: moments are the same moments in `raw`.

The source's clock is New York's, with its summer time; what it stores of a TIMESTAMP is UTC all
the same, but what it prints, and what DDL makes of defaults, is in its own zone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS
from tests.end_to_end.values import printing
from tests.end_to_end.values.catalogue import Kind
from tests.end_to_end.values.legs import Legs, Table
from tests.fix_servers import PASSWORD, SOURCE_USER, NewMariaDB

NEW_YORK = "EST5EDT,M3.2.0,M11.1.0"
"""As POSIX spells it, so that no table of zones is needed."""
MOMENTS = (
    "'2024-03-10 06:59:59'", "'2024-03-10 07:00:00'", "'2024-11-03 05:30:00'",
    "'2024-11-03 06:30:00'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'",
)  # fmt: skip


@pytest.fixture(params=["summer time", "an offset"])
def abroad(
    request: pytest.FixtureRequest,
    new_mariadb: NewMariaDB,
    replica_db: MySQLDatabase,
    analytics_db: PostgresDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Legs]:
    options = dict(SOURCE_OPTIONS)
    with monkeypatch.context() as patched:
        if request.param == "summer time":
            patched.setenv("TZ", NEW_YORK)
        else:
            options["default_time_zone"] = "+05:30"
        server = new_mariadb(options)
    with server.connect() as root:
        create_source_account(root, SOURCE_USER, PASSWORD)
        source = MySQLDatabase(server, "opendental_abroad", SOURCE_USER, PASSWORD)
        source.create()
        allow_source(root, SOURCE_USER, source.name)
    legs = Legs(source, replica_db, analytics_db)
    yield legs
    legs.close()
    source.close()


def test_moments_are_the_same_moments(abroad: Legs) -> None:
    legs = abroad
    family = {
        "ts": Kind("timestamp NULL", printing.MOMENT, MOMENTS),
        "ts6": Kind("timestamp(6) NULL", printing.MOMENT, MOMENTS),
        "dt": Kind("datetime(3)", printing.MOMENT, MOMENTS),
        "d": Kind("date", printing.DAY, ("'2024-03-10'",)),
        "t": Kind("time", printing.SPAN, ("'02:30:00'",)),
        "made": Kind("datetime DEFAULT CURRENT_TIMESTAMP", printing.MOMENT, ()),
        "made_ts": Kind(
            "timestamp NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
            printing.MOMENT, (),
        ),
    }  # fmt: skip
    copied = Table(legs, "copied", family)
    copied.fill()
    legs.catch_up()
    copied.assert_exact()
    streamed = Table(legs, "streamed", family)
    legs.catch_up()
    streamed.fill()
    legs.catch_up()
    streamed.assert_exact()
    # By the clock on the server's wall: an hour that comes twice, and now.
    for table in ("copied", "streamed"):
        legs.source.execute("SET time_zone = DEFAULT")
        legs.source.execute(f"INSERT INTO {table} (id, ts, dt) VALUES (50, NOW(), NOW(3))")
        legs.source.execute(
            f"INSERT INTO {table} (id, ts) VALUES (51, '2024-11-03 01:30:00'),"
            " (52, '2024-07-01 12:00:00'), (53, '2024-03-10 03:00:00')"
        )
    legs.catch_up()
    for table in (copied, streamed):
        table.assert_exact()
        table.touch()
    legs.catch_up()
    legs.resync(["copied", "streamed"])
    for table in (copied, streamed):
        table.assert_exact()


def test_a_default_that_is_now_is_the_sources_now(abroad: Legs) -> None:
    """What rows get at an ALTER is in the zone of the session that alters."""
    kinds = {"ts": Kind("timestamp NULL", printing.MOMENT, ("'2024-07-01 12:00:00'",))}
    table = Table(abroad, "t", kinds)
    table.fill()
    abroad.catch_up()
    abroad.source.execute("SET time_zone = DEFAULT")
    abroad.source.execute(
        "ALTER TABLE t ADD since timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,"
        " ADD anew datetime NOT NULL DEFAULT CURRENT_TIMESTAMP"
    )
    abroad.catch_up()
    table.widen(
        {
            **kinds,
            "since": Kind("timestamp", printing.MOMENT, ()),
            "anew": Kind("datetime", printing.MOMENT, ()),
        }
    )
    table.assert_exact()
