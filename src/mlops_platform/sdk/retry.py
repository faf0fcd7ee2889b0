"""When a request is sent again, and after how long. Pure but for the jitter that is passed in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx2

OVERLOADED = frozenset({429, 503})
"""The server says that nothing was done: safe for every request."""
BROKEN_ON_THE_WAY = frozenset({502, 504})
"""A proxy lost the answer: safe only for requests that may be repeated."""
LONGEST_RETRY_AFTER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter; a `Retry-After` of the server is honoured when it is longer."""

    attempts: int = 4
    """How often a request is sent, at most."""
    first_seconds: float = 0.1
    """The longest wait before the second attempt; each further one doubles it."""
    longest_seconds: float = 5.0
    """No wait is longer, other than one that the server asks for."""

    def after_answer(
        self, attempt: int, status: int, *, headers: Mapping[str, str], is_repeatable: bool, jitter: Callable[[], float]
    ) -> float | None:
        """Seconds to wait after an answer that is not a success; None when it is final."""
        nothing_was_done = status in OVERLOADED
        # A conflict with a time to come back: the first request with this idempotency key is still being worked on.
        comes_back = status in BROKEN_ON_THE_WAY or (status == 409 and "Retry-After" in headers)
        if not nothing_was_done and not (is_repeatable and comes_back):
            return None
        return self._wait(attempt, least=_retry_after(headers), jitter=jitter)

    def after_failure(
        self, attempt: int, error: httpx2.RequestError, *, is_repeatable: bool, jitter: Callable[[], float]
    ) -> float | None:
        """Seconds to wait after a broken connection; None when it is final."""
        nothing_was_sent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
        may_pass = isinstance(error, httpx2.TimeoutException | httpx2.NetworkError | httpx2.RemoteProtocolError)
        if not may_pass or not (nothing_was_sent or is_repeatable):
            return None
        return self._wait(attempt, least=0.0, jitter=jitter)

    def _wait(self, attempt: int, *, least: float, jitter: Callable[[], float]) -> float | None:
        if attempt >= self.attempts:
            return None
        ceiling = min(self.longest_seconds, self.first_seconds * 2.0 ** (attempt - 1))
        return max(least, ceiling * (0.5 + 0.5 * jitter()))


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(max(0.0, float(headers.get("Retry-After", "0"))), LONGEST_RETRY_AFTER_SECONDS)
    except ValueError:
        # The other form of the header is a date; our servers never send it, and a proxy's can wait for the backoff.
        return 0.0
