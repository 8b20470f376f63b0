"""The matrix meets any two settings of two kinds, and every word in it means something."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from replicator.sandbox.cluster import Engine
from replicator.sandbox.installations import MYSQL_NAMES, POSTGRES_NAMES
from replicator.sandbox.servers import REPLICA_OPTIONS, SOURCE_OPTIONS
from tests.fix_servers import PAIRS, family_of
from tests.source_options import applied, engine_of, parse

ROOT = Path(__file__).parents[2]
LINES = (ROOT / ".ci" / "matrix").read_text().splitlines()
LEFT_OUT = [
    line
    for line in (ROOT / ".ci" / "matrix-quick").read_text().splitlines()
    if line and not line.startswith("#")
]
Meeting = tuple[str, ...]

KINDS: dict[str, tuple[str, ...]] = {
    "image": ("full", "minimal-image", "noblob-image"),
    "metadata": ("none", "minimal-metadata", "full-metadata"),
    "compression": ("plain", "compressed"),
}


def lines() -> Iterator[tuple[str, str, str, str]]:
    """Kind of tests, servers, PostgreSQL and the words, as `.ci/matrix` has them."""
    for line in LINES:
        if not line.startswith("#"):
            kind, servers, postgres, words = line.split()
            yield kind, servers, postgres, "" if words == "-" else words


def meetings() -> Iterator[Meeting]:
    """The settings of each run; one that leaves the engine to its tests is there for both."""
    yield from settings("mariadb", "postgresql", "")  # `make test`
    for _, servers, postgres, words in lines():
        yield from settings(servers, postgres, words)


def settings(servers: str, postgres: str, words: str) -> Iterator[Meeting]:
    said = set(words.split(","))
    mysql = family_of(servers) == "mysql"
    chosen = [next((w for w in kind if w in said), kind[0]) for kind in KINDS.values()]
    if mysql and chosen[1] == "none":
        chosen[1] = "minimal-metadata"  # it cannot have less
    for engine in said & {"innodb", "myisam"} or ("innodb", "myisam"):
        without = "no-gtid" in said or (mysql and engine == "myisam")
        gtid = "no-gtid" if without else "gtid" if mysql or "gtid" in said else "as it comes"
        yield (servers, postgres, *chosen, engine, gtid)


def possible(meeting: Meeting) -> bool:
    servers, _, _, metadata, _, engine, gtid = meeting
    if family_of(servers) == "mysql":
        mixes = engine == "myisam" and gtid == "gtid"  # forbidden within a transaction
        return metadata != "none" and gtid != "as it comes" and not mixes
    return gtid != "no-gtid"  # MariaDB always has them


def pairs(meeting: Meeting) -> set[tuple[tuple[int, str], tuple[int, str]]]:
    return {
        (one, other)
        for one, other in itertools.combinations(enumerate(meeting), 2)
    }  # fmt: skip


def test_any_two_settings_of_two_kinds_meet_on_some_line() -> None:
    engines, gtids = ("innodb", "myisam"), ("as it comes", "gtid", "no-gtid")
    every = itertools.product(MYSQL_NAMES, POSTGRES_NAMES, *KINDS.values(), engines, gtids)
    wanted = set().union(*(pairs(meeting) for meeting in every if possible(meeting)))
    met = set().union(*map(pairs, meetings()))
    assert wanted - met == set()


@pytest.mark.parametrize("line", list(lines()), ids=" ".join)
def test_a_line_names_servers_and_words_that_there_are(line: tuple[str, str, str, str]) -> None:
    kind, servers, postgres, words = line
    assert kind in {"whole", "stream"}
    assert servers in PAIRS
    assert postgres in POSTGRES_NAMES
    assert len(parse(words, family_of(servers))) >= len(words.split(",")) - (not words)


def test_a_replica_may_be_another_server_where_a_line_proves_it() -> None:
    assert set(PAIRS) - set(MYSQL_NAMES) == {line[1] for line in lines()} - set(MYSQL_NAMES)


@pytest.mark.parametrize("line", LEFT_OUT)
def test_what_quick_leaves_out_is_there(line: str) -> None:
    """A test that has moved would be run again, on every server."""
    place, _, name = line.partition("::")
    files = [file for file in ROOT.glob(f"{place}*") if file.is_dir() or file.suffix == ".py"]
    assert files
    assert not name or f"def {name.partition('[')[0]}(" in files[0].read_text()


@pytest.mark.parametrize(
    ("words", "family", "reason"),
    [
        ("no-gtid", "mariadb", "mariadb knows"),
        ("sideways", "mysql", "mysql knows"),
        ("minimal-image,noblob-image", "mysql", "said otherwise"),
    ],
)
def test_a_word_that_does_nothing_is_refused(words: str, family: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(words, family)


def test_what_a_test_sets_itself_stands() -> None:
    chosen = parse("minimal-image,compressed", "mariadb").items()
    own = {**SOURCE_OPTIONS, "binlog_row_image": "NOBLOB"}
    assert applied(own, chosen)["binlog_row_image"] == "NOBLOB"
    assert applied(own, chosen)["log_bin_compress"] == "ON"
    assert applied(REPLICA_OPTIONS, chosen) == REPLICA_OPTIONS


def test_the_engine_is_one_that_tables_can_be_made_with() -> None:
    found = [engine_of(parse(word, "mysql").items()) for word in ("innodb", "myisam", "")]
    assert found == [*get_args(Engine), None]
