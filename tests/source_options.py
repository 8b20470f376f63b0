"""How a source may be set up otherwise: the words of `--source-options`, and what they mean.

From the left come words such as `minimal-image,compressed`; to the right go options for a
server of the family at hand. Pure. A word that means nothing to a family, or that another
word contradicts, is refused: a line of the matrix must not claim what it does not do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from replicator.sandbox.cluster import Engine
from replicator.sandbox.servers import SOURCE_OPTIONS, Options

_BOTH: dict[str, dict[str, str]] = {
    "minimal-image": {"binlog_row_image": "MINIMAL"},
    "noblob-image": {"binlog_row_image": "NOBLOB"},
    "minimal-metadata": {"binlog_row_metadata": "MINIMAL"},
    "full-metadata": {"binlog_row_metadata": "FULL"},
    "innodb": {"default_storage_engine": "InnoDB"},
    "myisam": {"default_storage_engine": "MyISAM"},
}
_OF_FAMILY: dict[str, dict[str, dict[str, str]]] = {
    "mariadb": {
        # Nothing turns its GTIDs off; they may be checked, and come from a domain of their own.
        "gtid": {"gtid_strict_mode": "ON", "gtid_domain_id": "7"},
        "compressed": {"log_bin_compress": "ON", "log_bin_compress_min_len": "10"},
    },
    "mysql": {
        "gtid": {"gtid_mode": "ON", "enforce_gtid_consistency": "ON"},
        "no-gtid": {"gtid_mode": "OFF", "enforce_gtid_consistency": "OFF"},
        "compressed": {"binlog_transaction_compression": "ON"},
    },
}


def parse(words: str, family: str) -> dict[str, str]:
    """`minimal-image,compressed` as options of a server of that family; ValueError says why not."""
    known = {**_BOTH, **_OF_FAMILY[family]}
    options: dict[str, str] = {}
    for word in filter(None, words.split(",")):
        if word not in known:
            raise ValueError(f"{word}: {family} knows {', '.join(sorted(known))}")
        if options.keys() & known[word].keys():
            raise ValueError(f"{word}: another word has said otherwise")
        options |= known[word]
    return options


def engine_of(chosen: Iterable[tuple[str, str]]) -> Engine | None:
    """The storage engine among chosen options, if it is."""
    named = dict(chosen).get("default_storage_engine")
    return next((engine for engine in get_args(Engine) if engine == named), None)


def applied(options: Options, chosen: Iterable[tuple[str, str]]) -> Options:
    """A source's options with the chosen ones, but where a test has set something itself.

    A server that is not a source, by the name of its binlog, stays as it is.
    """
    if options.get("log_bin") != SOURCE_OPTIONS["log_bin"]:
        return options
    own = {key for key, value in options.items() if SOURCE_OPTIONS.get(key) != value}
    return {**options, **{key: value for key, value in chosen if key not in own}}
