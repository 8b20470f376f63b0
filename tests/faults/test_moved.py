"""A server's binlog is begun anew, or purged, while everybody works: halted by name, or healed."""

from __future__ import annotations

import pytest

from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.waiting import wait_until
from tests.faults.conftest import GetTrial
from tests.faults.trial import Trial


def _purge(database: MySQLDatabase) -> None:
    """All files but a new one; one that is being read, by the dead even, the server keeps."""
    database.execute("FLUSH BINARY LOGS")
    last = database.binlog_end()[0]

    def gone() -> bool:
        database.execute(f"PURGE BINARY LOGS TO '{last}'")
        return bool(database.query("SHOW BINARY LOGS")[0][0] == last)

    wait_until(gone, 60, what=lambda: f"a purge of {database.query('SHOW BINARY LOGS')}")


def _halts(the: Trial, said_before: int) -> str:
    """The replicator ends by itself; what it says then."""
    assert the.pipe.replicator.wait(60) == 2
    said = the.pipe.replicator.output[said_before:]
    assert "Traceback" not in said
    assert "replicator resync --all" in said
    return said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("loss", ["begun anew", "purged"])
def test_a_source_that_lost_our_position_halts_and_a_resync_of_everything_mends_it(
    trial: GetTrial, loss: str
) -> None:
    the = trial("InnoDB")
    the.settle()
    source, replicator = the.pipe.sandbox.source_db, the.pipe.replicator
    said = len(replicator.output)
    if loss == "begun anew":
        source.forget_binlogs()
        wait_until(
            lambda: not replicator.running, 60, what=lambda: f"a halt: {replicator.output[-3000:]}"
        )
        assert "SourceReset" in _halts(the, said)
    else:
        replicator.kill()
        _purge(source)
        the.restart(replicator)
        assert "PositionLost" in _halts(the, said)
    the.copy_everything()
    the.settle()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("loss", ["begun anew", "purged"])
def test_a_replica_that_lost_the_loaders_position_is_reloaded_without_a_hand(
    trial: GetTrial, loss: str
) -> None:
    the = trial("InnoDB")
    the.settle()
    replica, loader = the.pipe.sandbox.replica_db, the.pipe.loader
    said = len(loader.output)
    if loss == "begun anew":
        replica.forget_binlogs()
    else:
        loader.kill()
        _purge(replica)
        the.restart(loader)
    wait_until(
        lambda: "replica_position_lost" in loader.output[said:],
        60,
        what=lambda: f"a reload: {loader.output[-3000:]}",
    )
    the.settle()
