"""Sealing audit entries into a hash chain, and finding out whether anyone touched them.

Each link is `SHA-256(previous link || SHA-256(canonical entry))`. The head of every sealed batch is signed with a key
derived from `API_SECRET_KEY`, which the database does not know. Whoever can only write to the database can therefore
neither edit, remove nor reorder sealed entries without `verify` saying so. Cutting off the newest entries together with
their heads is found by the anchor: the last head as it was written outside of the database.
"""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, literal_column, select, text

from mlops_platform.core.audit.tables import audit_chain, audit_entries, audit_heads, audit_pending
from mlops_platform.core.clock import to_wire
from mlops_platform.core.db.session import ReadSession, WriteSession

GENESIS = bytes(32)
_SEAL_LOCK = 0x6D6C_6F70_0001
_VERIFY_BATCH = 5000
_MOST_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: how many entries are sealed, and the last link."""

    position: int
    chain_hash: bytes

    def __str__(self) -> str:
        return f"{self.position}:{self.chain_hash.hex()}"

    @classmethod
    def parse(cls, value: str) -> "Head":
        """The inverse of `str`; ValueError when it is not one."""
        position, _, digest = value.strip().partition(":")
        head = cls(int(position), bytes.fromhex(digest))
        if head.position < 1 or len(head.chain_hash) != len(GENESIS):
            raise ValueError(f"not a head of the chain: {value[:100]!r}")
        return head


_BEGINNING = Head(0, GENESIS)


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found. `problems` is empty exactly when nothing was touched."""

    sealed: int
    unsealed: int
    head: Head | None
    problems: tuple[str, ...]


def entry_digest(row: Row[Any]) -> bytes:
    """SHA-256 over every column of an entry, in a fixed order and writing."""
    values: list[Any] = [
        to_wire(value) if isinstance(value, datetime) else value
        for value in (getattr(row, column.name) for column in audit_entries.columns)
    ]
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).digest()


def next_link(previous: bytes, digest: bytes) -> bytes:
    """The chain's step."""
    return hashlib.sha256(previous + digest).digest()


def sign(key: bytes, head: Head) -> bytes:
    """HMAC-SHA256 of a head."""
    return hmac.digest(key, str(head).encode(), "sha256")


async def seal(session: WriteSession, key: bytes, now: datetime, *, limit: int = 1000) -> Head | None:
    """Append up to `limit` waiting entries to the chain; the new head, or None when nothing waited."""
    await session.execute(select(func.pg_advisory_xact_lock(_SEAL_LOCK)))
    rows = await session.all(
        select(audit_entries)
        .join(audit_pending, audit_pending.c.entry_id == audit_entries.c.id)
        .order_by(audit_entries.c.sequence)
        .limit(limit)
    )
    if not rows:
        return None
    last = await session.first(select(audit_chain).order_by(audit_chain.c.position.desc()).limit(1))
    # Hashing is work for a thread: a thousand entries keep the event loop for longer than a request takes.
    links = await asyncio.to_thread(_linked, rows, Head(last.position, last.chain_hash) if last else _BEGINNING)
    head = Head(links[-1]["position"], links[-1]["chain_hash"])
    await session.execute(insert(audit_chain), links)
    await session.execute(delete(audit_pending).where(audit_pending.c.entry_id.in_([row.id for row in rows])))
    await session.execute(
        insert(audit_heads).values(
            position=head.position, chain_hash=head.chain_hash, signature=sign(key, head), sealed_at=now
        )
    )
    return head


def _linked(rows: Sequence[Row[Any]], last: Head) -> list[dict[str, Any]]:
    """The links of entries that follow the last one."""
    links: list[dict[str, Any]] = []
    link = last.chain_hash
    for position, row in enumerate(rows, last.position + 1):
        digest = entry_digest(row)
        link = next_link(link, digest)
        links.append({"position": position, "entry_id": row.id, "entry_digest": digest, "chain_hash": link})
    return links


async def verify(session: ReadSession, key: bytes, anchor: Head | None = None) -> Verification:
    """Walk the whole chain. Finds edits, deletions, reordering, truncation (with `anchor`) and forged heads."""
    problems: list[str] = []
    end, anchored = _BEGINNING, anchor is None
    while batch := await _links_after(session, end.position):
        found, ends = await asyncio.to_thread(_check_links, batch, end)
        _add(problems, found)
        end, anchored = ends[-1], anchored or anchor in ends
    head = end if end.position else None
    _add(problems, await _check_heads(session, key, end.position))
    if not anchored:
        _add(problems, [f"the anchored head {anchor} is not in the chain: entries were cut off or rewritten"])
    pending = int(await session.scalar(select(func.count()).select_from(audit_pending)))
    loose = int(await session.scalar(_LOOSE) or 0)
    if loose:
        _add(problems, [f"{loose} entries are neither sealed nor waiting: their seals or the waiting list were removed"])
    return Verification(end.position, pending, head, tuple(problems))


def _add(problems: list[str], found: Sequence[str]) -> None:
    """Keep the first ones: of a chain that is broken throughout, every link is a problem."""
    problems += found[: _MOST_PROBLEMS - len(problems)]


_LOOSE = text(
    "SELECT count(*) FROM core.audit_entries e"
    " WHERE NOT EXISTS (SELECT 1 FROM core.audit_chain c WHERE c.entry_id = e.id)"
    " AND NOT EXISTS (SELECT 1 FROM core.audit_pending p WHERE p.entry_id = e.id)"
)


async def _links_after(session: ReadSession, position: int) -> Sequence[Row[Any]]:
    return await session.all(
        select(
            audit_chain.c.position.label("chain_position"),
            audit_chain.c.entry_digest,
            audit_chain.c.chain_hash,
            audit_chain.c.entry_id,
            (audit_entries.c.id.is_not(None)).label("is_present"),
            *audit_entries.columns,
        )
        .select_from(audit_chain.outerjoin(audit_entries, audit_entries.c.id == audit_chain.c.entry_id))
        .where(audit_chain.c.position > position)
        .order_by(literal_column("chain_position"))
        .limit(_VERIFY_BATCH)
    )


def _check_links(rows: Sequence[Row[Any]], last: Head) -> tuple[list[str], list[Head]]:
    """What is wrong with the links after the last one, and where each of them ends."""
    problems: list[str] = []
    ends = [last]
    for row in rows:
        problems += _check_link(row, ends[-1].chain_hash, ends[-1].position + 1)
        ends.append(Head(row.chain_position, row.chain_hash))
    return problems, ends[1:]


def _check_link(row: Row[Any], previous: bytes, expected_position: int) -> list[str]:
    problems = []
    if row.chain_position != expected_position:
        problems.append(f"link {expected_position} is missing")
    if not row.is_present:
        problems.append(f"entry {row.entry_id} at link {row.chain_position} was deleted")
    elif entry_digest(row) != row.entry_digest:
        problems.append(f"entry {row.entry_id} at link {row.chain_position} was edited")
    if next_link(previous, row.entry_digest) != row.chain_hash:
        problems.append(f"link {row.chain_position} does not follow from the one before: edited or reordered")
    return problems


async def _check_heads(session: ReadSession, key: bytes, reached: int) -> list[str]:
    problems: list[str] = []
    newest = 0
    while batch := await _heads_after(session, newest):
        _add(problems, await asyncio.to_thread(_check_head_batch, batch, key))
        newest = batch[-1].position
    if reached > newest:
        _add(problems, [f"links after {newest} carry no signed head"])
    return problems


async def _heads_after(session: ReadSession, position: int) -> Sequence[Row[Any]]:
    return await session.all(
        select(audit_heads, audit_chain.c.chain_hash.label("linked"))
        .select_from(audit_heads.outerjoin(audit_chain, audit_chain.c.position == audit_heads.c.position))
        .where(audit_heads.c.position > position)
        .order_by(audit_heads.c.position)
        .limit(_VERIFY_BATCH)
    )


def _check_head_batch(rows: Sequence[Row[Any]], key: bytes) -> list[str]:
    problems = []
    for row in rows:
        stated = Head(row.position, row.chain_hash)
        if not hmac.compare_digest(sign(key, stated), row.signature):
            problems.append(f"the head at link {row.position} carries a wrong signature")
        elif row.linked != row.chain_hash:
            problems.append(f"the signed head at link {row.position} is not in the chain: cut off or rewritten")
    return problems
