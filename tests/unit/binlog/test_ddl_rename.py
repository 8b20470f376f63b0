"""RENAME TABLE within our database, out of it and into it."""

from __future__ import annotations

from typing import Any

from replicator.binlog.ddl import Execute, Skip, decide


def rename(pairs: str, **options: Any) -> Execute:
    found = decide(
        f"RENAME TABLE {pairs}",
        default_database="opendental",
        source_db="opendental",
        replica_db="copy",
        carries=lambda table: not table.startswith("tempdash"),
        **options,
    )
    assert isinstance(found, Execute), found
    return found


def test_a_swap_across_several_tables_stays_one_statement() -> None:
    found = rename("t TO opendental.x,\n u TO t, opendental.x TO u")
    assert found.sql == "RENAME TABLE t TO `copy`.x,\n u TO t, `copy`.x TO u"
    assert found.renames == (("t", "x"), ("u", "t"), ("x", "u"))
    assert found.tables == ("t", "x", "u")


def test_options_between_the_names_are_kept() -> None:
    assert rename("IF EXISTS t WAIT 5 TO u").sql == "RENAME TABLE IF EXISTS t WAIT 5 TO u"


def test_a_table_that_leaves_is_dropped() -> None:
    found = rename("t TO backup.t, u TO tempdash1")
    assert found.statements == ("DROP TABLE IF EXISTS `copy`.`t`, `copy`.`u`",)
    assert (found.dropped, found.renames, found.needs_copy) == (("t", "u"), (), ())


def test_a_table_that_arrives_is_copied() -> None:
    found = rename("backup.t TO t, tempdash1 TO u")
    assert (found.statements, found.needs_copy) == ((), ("t", "u"))


def test_a_table_that_arrives_in_the_place_of_another_is_copied_after_the_rename() -> None:
    found = rename("t TO t_old, backup.t TO t")
    assert found.statements == ("RENAME TABLE `copy`.`t` TO `copy`.`t_old`",)
    assert (found.renames, found.needs_copy) == ((("t", "t_old"),), ("t",))


def test_a_table_that_leaves_makes_room_before_another_takes_its_name() -> None:
    found = rename("t TO backup.t, u TO t")
    assert found.sql == (
        "RENAME TABLE `copy`.`t` TO `copy`.`_old_moved_0_t`, `copy`.`u` TO `copy`.`t`"
    )
    assert found.then == ("DROP TABLE IF EXISTS `copy`.`_old_moved_0_t`",)
    assert (found.dropped, found.renames) == (("t",), (("u", "t"),))


def test_a_table_that_comes_back_was_never_gone() -> None:
    found = rename("t TO backup.x, u TO t, backup.x TO u")
    assert found.sql == (
        "RENAME TABLE `copy`.`t` TO `copy`.`_old_moved_0_x`, `copy`.`u` TO `copy`.`t`, "
        "`copy`.`_old_moved_0_x` TO `copy`.`u`"
    )
    assert (found.dropped, found.needs_copy, found.then) == ((), (), ())


def test_a_table_that_passes_through_is_copied_under_its_last_name() -> None:
    found = rename("backup.x TO t, t TO u, u TO v")
    assert (found.statements, found.needs_copy) == ((), ("v",))


def test_what_the_replica_lacks_is_a_view_or_must_be_copied() -> None:
    found = rename("t TO u, v TO w", present=lambda table: table == "t")
    assert found.statements == ("RENAME TABLE `copy`.`t` TO `copy`.`u`",)
    assert found.needs_copy == ("w",)


def test_names_elsewhere_are_not_ours() -> None:
    found = decide(
        "RENAME TABLES a TO opendental2.b",
        default_database="backup",
        source_db="opendental",
        replica_db="copy",
        carries=lambda _: True,
    )
    assert found == Skip("other database")
