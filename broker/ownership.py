"""About whose things each message may be: the part of its rule that the consumer itself decides.

:mod:`.authorization` says who may send a message at all; this says what it may then be about, in one place for people
to read (the generated page shows it beside the table). The consumers carry it out, jobs by
:func:`.authorization.may_touch_job` and :func:`.authorization.may_see_job`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Whose(StrEnum):
    """What a message may be about."""

    OWN = "own"
    """What is the sender's own, in the group that he acts for."""
    ACT = "may act on"
    """Jobs of the sender in his group; with JobSharing all of the group's; with JobAdministrator all."""
    SEE = "may see"
    """Jobs that one may act on, all of one's own in any group; with JobMonitor or Operator all."""
    READ = "may read"
    """Files: a user's of jobs that he may see, a pilot's of jobs whose live lease it holds."""
    LEASE = "live lease"
    """Jobs whose live lease this pilot holds: anything else is stale and changes nothing."""
    SELF = "itself"
    """The pilot that sends it."""
    ADD = "may add"
    """New copies of any file; only a DataManager replaces one that is there."""
    ALL = "all"
    """Everything of its kind."""


WHOSE: Mapping[str, Whose] = {
    "job.submit.v1": Whose.OWN,
    "job.kill.v1": Whose.ACT,
    "job.delete.v1": Whose.ACT,
    "job.reschedule.v1": Whose.ACT,
    "job.query.v1": Whose.SEE,
    "job.inspect.v1": Whose.SEE,
    "job.follow.v1": Whose.SEE,
    "job.explain.v1": Whose.SEE,
    "job.weigh.v1": Whose.OWN,
    "queue.query.v1": Whose.SEE,
    "queue.inspect.v1": Whose.SEE,
    "delegation.request.v1": Whose.OWN,
    "delegation.put.v1": Whose.OWN,
    "replica.register.v1": Whose.ADD,
    "replica.query.v1": Whose.ALL,
    "sandbox.put.v1": Whose.OWN,
    "sandbox.get.v1": Whose.READ,
    "match.request.v1": Whose.SELF,
    "job.accept.v1": Whose.LEASE,
    "job.report.v1": Whose.LEASE,
    "pilot.heartbeat.v1": Whose.LEASE,
    "pilot.goodbye.v1": Whose.SELF,
    "control.done.v1": Whose.LEASE,
    "proxy.request.v1": Whose.LEASE,
    "pilot.renew.v1": Whose.SELF,
    "dead.query.v1": Whose.ALL,
    "dead.replay.v1": Whose.ALL,
    "dead.discard.v1": Whose.ALL,
    "repository.query.v1": Whose.ALL,
    "repository.reencrypt.v1": Whose.ALL,
    "repository.delete.v1": Whose.ALL,
    "registry.query.v1": Whose.ALL,
    "registry.history.v1": Whose.ALL,
    "registry.change.v1": Whose.ALL,
    "registry.sync.v1": Whose.ALL,
    "enrolment.query.v1": Whose.ALL,
    "enrolment.create.v1": Whose.ALL,
    "enrolment.revoke.v1": Whose.ALL,
    "audit.query.v1": Whose.ALL,
    "audit.walk.v1": Whose.ALL,
    "audit.trace.v1": Whose.ALL,
    "session.query.v1": Whose.ALL,
    "session.cut.v1": Whose.ALL,
}
"""One row for each message that users, pilots or operators send; a test counts them."""
