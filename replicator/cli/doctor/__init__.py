"""`replicator check`: everything that must hold, looked at, each with its remedy.

Facts are read from each server once (`facts`); what they mean is decided by pure
functions over them (`source`, `replica`, `analytics`, `here`); `examine` puts both
together. Nothing is changed on any server.
"""

from replicator.cli.doctor.examine import examine
from replicator.cli.doctor.finding import Finding, Verdict, worst

__all__ = ["Finding", "Verdict", "examine", "worst"]
