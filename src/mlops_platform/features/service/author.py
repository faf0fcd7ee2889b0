"""Who changes something in a use case that opens its own transactions."""

from dataclasses import dataclass

from mlops_platform.core.clock import Clock
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.core.work.unit import UnitOfWork


@dataclass(frozen=True, slots=True)
class Author:
    """The caller, and the request in which it happens."""

    principal: Principal
    request_id: str | None = None
    trace_parent: str | None = None

    def work(self, session: WriteSession, clock: Clock) -> UnitOfWork:
        """A unit of work of this author."""
        return UnitOfWork(session, self.principal, clock, self.request_id, self.trace_parent)
