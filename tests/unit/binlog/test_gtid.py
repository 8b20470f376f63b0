"""Tagged GTIDs, as MySQL 9.7 wrote one."""

from __future__ import annotations

import pytest

from config.errors import UnknownEvent
from replicator.binlog.gtid import read_tagged

EVENT = bytes(19) + bytes.fromhex(
    "028200000002290285023d0309029903c50322c5030902"
    "2e04f10300000002043102061070726163746963650804"
    "0a39020c7f1844268ce96006107904128312 0b"
)


def test_a_tagged_gtid_is_read_with_its_commit_time() -> None:
    gtid = "8aa1cf82-e6f1-11f1-8217-02fc00000001:practice:70"
    assert read_tagged(EVENT) == (gtid, 1795406055228440)


def test_a_number_of_nine_bytes_is_read() -> None:
    at = EVENT.index(b"\x0c\x7f") + 1
    long = EVENT[:at] + b"\xff" + (2**63 + 5).to_bytes(8, "little") + EVENT[at + 8 :]
    assert read_tagged(long)[1] == 2**63 + 5


@pytest.mark.parametrize("length", [20, 25, 40, 60, 75])
def test_one_that_is_cut_short_is_told(length: int) -> None:
    with pytest.raises(UnknownEvent, match="cut short"):
        read_tagged(EVENT[:length])
