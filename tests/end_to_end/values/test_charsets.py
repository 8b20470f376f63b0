"""Every character set and every collation that the servers ship, through both legs.

Which there are the server says: a set or collation that a new version brings is a failure here
until we know it.
"""

from __future__ import annotations

from tests.end_to_end.values import printing
from tests.end_to_end.values.catalogue import Family, Kind, Unholdable
from tests.end_to_end.values.legs import Legs, Table

BLOCK = 512
SURROGATES = range(0xD800, 0xE000)
UNASSIGNED = {
    "big5": "F9FC", "cp1250": "81", "cp1251": "98", "cp1256": "8A", "cp1257": "81",
    "cp932": "81AD", "dec8": "A4", "eucjpms": "A2AF", "euckr": "A2E8", "gb18030": "8431A530",
    "gb2312": "A2A1", "gbk": "A140", "geostd8": "81", "greek": "A4", "hebrew": "A1", "hp8": "FF",
    "sjis": "81AD", "swe7": "80", "ujis": "A2AF",
}  # fmt: skip
"""Bytes that the server takes, but for which it has no character."""


def _blocks() -> list[str]:
    """Every character of the basic plane but NUL, and some beyond it, as literals."""
    wanted = [
        *(point for point in range(1, 0x10000) if point not in SURROGATES),
        *range(0x1F600, 0x1F600 + BLOCK), *range(0x20000, 0x20000 + BLOCK), 0x10000, 0x10FFFF,
    ]  # fmt: skip
    points = [point.to_bytes(4, "big").hex() for point in wanted]
    return [f"_utf32 X'{''.join(points[at : at + BLOCK])}'" for at in range(0, len(points), BLOCK)]


def _charsets(legs: Legs) -> list[str]:
    rows = legs.source.query(
        "SELECT character_set_name FROM information_schema.character_sets"
        " WHERE character_set_name <> 'binary' ORDER BY 1"
    )
    return [name for (name,) in rows]


def test_every_character_of_every_charset_arrives(legs: Legs) -> None:
    blocks = tuple(_blocks())
    family: Family = {}
    for name in _charsets(legs):
        bad = UNASSIGNED.get(name)
        unholdable = (Unholdable(f"_{name} X'{bad}'", f"not valid {name}"),) if bad else ()
        literals = ("'plain'", "''") if name == "ascii" else blocks
        family[name] = Kind(f"text CHARACTER SET {name}", printing.TEXT, literals, unholdable)
    copied = Table(legs, "copied", family)
    copied.fill()
    legs.catch_up()
    copied.assert_exact()
    streamed = Table(legs, "streamed", family)
    legs.catch_up()
    streamed.fill()
    legs.catch_up()
    streamed.assert_exact()


def test_every_collation_is_known(legs: Legs) -> None:
    rows = legs.source.query(
        "SELECT COALESCE(full_collation_name, collation_name), character_set_name FROM"
        " information_schema.collation_character_set_applicability"
        " WHERE character_set_name <> 'binary' ORDER BY 1"
        if _has_full_names(legs)
        else "SELECT collation_name, character_set_name FROM information_schema.collations"
        " WHERE character_set_name <> 'binary' ORDER BY 1"
    )
    assert len(rows) > 200
    tables = []
    for number in range(0, len(rows), 150):
        family = {
            collation: Kind(
                f"varchar(8) CHARACTER SET {charset} COLLATE {collation}",
                printing.TEXT,
                ("'aéЖ日ש'", "'A '"),
            )
            for collation, charset in rows[number : number + 150]
        }
        tables.append(Table(legs, f"collations{number}", family))
    legs.catch_up()
    for table in tables:
        table.fill()
    legs.catch_up()
    for table in tables:
        table.assert_exact()


def _has_full_names(legs: Legs) -> bool:
    """MariaDB's newer collations belong to several character sets, under a name for each."""
    return bool(
        legs.source.query(
            "SELECT 1 FROM information_schema.columns WHERE table_schema = 'information_schema'"
            " AND table_name = 'COLLATION_CHARACTER_SET_APPLICABILITY'"
            " AND column_name = 'FULL_COLLATION_NAME'"
        )
    )
