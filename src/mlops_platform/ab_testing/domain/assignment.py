"""Which variant a unit gets: one hash, two independent slots, and ranges of slots that move as little as possible.

    digest       = SHA-256(salt + 0x1f + unit id), both in UTF-8
    traffic slot = first 8 bytes, big-endian, times SLOTS, divided by 2**64, rounded down
    variant slot = next 8 bytes, in the same way

A unit takes part when its traffic slot is below the traffic threshold; it belongs to the owner of its variant slot.
The two slots come from different bytes: with one slot for both, a partial roll-out would give all units to one variant.
The salt is drawn once per test and kept, so tests are independent of each other and a test of itself over time.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

SLOTS = 1_000_000
"""One slot is a millionth of the units."""

WEIGHT_TOLERANCE = 1e-5
SEPARATOR = b"\x1f"


@dataclass(frozen=True, slots=True)
class Allocation:
    """Who owns which slots: range `i` ends before slot `ends[i]` and belongs to the variant at position `owners[i]`."""

    ends: tuple[int, ...]
    owners: tuple[int, ...]

    def owner(self, slot: int) -> int:
        return self.owners[bisect_right(self.ends, slot)]

    def ranges(self) -> list[tuple[int, int, int]]:
        """Each range as (start, end, owner)."""
        return list(zip((0, *self.ends), self.ends, self.owners, strict=False))


def unit_slots(salt: str, unit_id: str) -> tuple[int, int]:
    """The traffic slot and the variant slot of a unit.

    >>> unit_slots("00112233445566778899aabbccddeeff", "user_123")
    (572565, 326715)
    """
    return digest_slots(hashlib.sha256(salt.encode() + SEPARATOR + unit_id.encode()).digest())


def digest_slots(digest: bytes) -> tuple[int, int]:
    """The same from a ready digest."""
    return (
        int.from_bytes(digest[:8], "big") * SLOTS >> 64,
        int.from_bytes(digest[8:16], "big") * SLOTS >> 64,
    )


def traffic_slots(share: float) -> int:
    """How many slots take part. Raising the share never moves a unit that takes part already.

    >>> traffic_slots(0.1)
    100000
    """
    return max(1, round(share * SLOTS))


def weights_problem(weights: Sequence[float], *, zero_allowed: bool = False) -> str | None:
    """What is wrong with these weights, or None.

    >>> weights_problem([0.5, 0.4])
    'the weights must sum to 1; they sum to 0.9'
    >>> weights_problem([1.0, 0.0])
    'each weight must be positive'
    """
    least = 1 / SLOTS
    if not zero_allowed and any(weight <= 0 for weight in weights):
        return "each weight must be positive"
    if any(not math.isfinite(weight) or weight < 0 for weight in weights):
        return "each weight must be a finite number, not below 0"
    if any(0 < weight < least for weight in weights):
        return f"a weight must be at least {least:f}"
    total = math.fsum(weights)
    if abs(total - 1) > WEIGHT_TOLERANCE:
        return f"the weights must sum to 1; they sum to {total:.6g}"
    return None


def quotas(weights: Sequence[float]) -> list[int]:
    """Whole slots for each weight that sum to SLOTS: rounded down, the rest to the largest remainders.

    >>> quotas([0.333333, 0.333333, 0.333334])
    [333333, 333333, 333334]
    """
    total = math.fsum(weights)
    exact = [weight / total * SLOTS for weight in weights]
    whole = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: SLOTS - sum(whole)]:
        whole[i] += 1
    return whole


def allocate(weights: Sequence[float]) -> Allocation:
    """A fresh allocation: one range for each variant, in order.

    >>> allocate([0.5, 0.5])
    Allocation(ends=(500000, 1000000), owners=(0, 1))
    """
    ranges, start = [], 0
    for owner, count in enumerate(quotas(weights)):
        ranges.append((start, start + count, owner))
        start += count
    return _from_ranges(ranges)


def reallocate(current: Allocation, weights: Sequence[float]) -> Allocation:
    """The allocation for new weights that moves the fewest units.

    A variant that shrinks gives up its highest slots, and only as many as it must; a variant that grows keeps all of
    its own and takes the freed slots from the lowest up. So the share of units that moves equals half the sum of the
    absolute changes, which is the least possible. New variants stand at the end of `weights`.

    >>> reallocate(allocate([0.5, 0.5]), [0.4, 0.6])
    Allocation(ends=(400000, 1000000), owners=(0, 1))
    >>> reallocate(allocate([0.5, 0.5]), [0.4, 0.4, 0.2]).ranges()
    [(0, 400000, 0), (400000, 500000, 2), (500000, 900000, 1), (900000, 1000000, 2)]
    """
    wanted = quotas(weights)
    kept, freed = _release(current, wanted)
    lacking = list(wanted)
    for start, end, owner in kept:
        lacking[owner] -= end - start
    return _from_ranges(sorted(kept + _fill(freed, lacking)))


def moved_share(before: Allocation, after: Allocation) -> float:
    """The share of units whose variant differs between two allocations."""
    edges = sorted({0, *before.ends, *after.ends})
    moved = sum(end - start for start, end in pairwise(edges) if before.owner(start) != after.owner(start))
    return moved / SLOTS


Range = tuple[int, int, int]


def _release(current: Allocation, wanted: Sequence[int]) -> tuple[list[Range], list[tuple[int, int]]]:
    """Split the current ranges into what each owner keeps, lowest slots first, and what is freed."""
    left = list(wanted)
    kept: list[Range] = []
    freed: list[tuple[int, int]] = []
    for start, end, owner in current.ranges():
        keep = min(end - start, left[owner])
        left[owner] -= keep
        if keep:
            kept.append((start, start + keep, owner))
        if start + keep < end:
            freed.append((start + keep, end))
    return kept, freed


def _fill(freed: Iterable[tuple[int, int]], lacking: list[int]) -> list[Range]:
    """Hand the freed slots, from the lowest up, to the owners that lack some, in their order."""
    given: list[Range] = []
    owner = 0
    for begin, end in freed:
        start = begin
        while start < end:
            while not lacking[owner]:
                owner += 1
            take = min(end - start, lacking[owner])
            given.append((start, start + take, owner))
            lacking[owner] -= take
            start += take
    return given


def _from_ranges(ranges: Iterable[Range]) -> Allocation:
    """Join neighbours of one owner; empty ranges vanish."""
    ends: list[int] = []
    owners: list[int] = []
    for start, end, owner in ranges:
        if start == end:
            continue
        if owners and owners[-1] == owner:
            ends[-1] = end
        else:
            ends.append(end)
            owners.append(owner)
    return Allocation(tuple(ends), tuple(owners))
