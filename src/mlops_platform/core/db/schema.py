"""Column types and the metadata of each PostgreSQL schema."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, DateTime, MetaData, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

NAMING = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}


def service_metadata(schema: str) -> MetaData:
    """The metadata of one PostgreSQL schema, with names by convention so that migrations can name constraints."""
    return MetaData(schema=schema, naming_convention=NAMING)


CORE = service_metadata("core")


class HexId(TypeDecorator[str]):
    """A UUID column that the code sees as 32 lowercase hex digits without dashes."""

    impl = PG_UUID(as_uuid=True)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else UUID(hex=value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else value.hex

    @property
    def python_type(self) -> type[str]:
        return str


class UtcTime(TypeDecorator[datetime]):
    """`timestamptz`; naive datetimes are a programming error."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a naive datetime reached the database: {value!r}")
        return value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)


def sorted_text() -> TypeEngine[str]:
    """Text that is compared byte by byte, so that keyset pages mean the same on every machine."""
    return Text(collation="C")


def id_column(name: str = "id") -> Column[str]:
    """A primary key made by the application."""
    return Column(name, HexId, primary_key=True)


def project_column() -> Column[str]:
    """The tenant of a row. No foreign key: service schemas never reference `core`."""
    return Column("project_id", HexId, nullable=False)


def created_column() -> Column[datetime]:
    """When the row was made."""
    return Column("created_at", UtcTime, nullable=False)


def read_json(text: str) -> Any:
    """JSON as it was written. The database writes the float 1e20 without its exponent, as an integer that nobody sent."""
    return json.loads(text, parse_int=_read_integer)


def _read_integer(digits: str) -> float:
    if len(digits) < 19:
        return int(digits)
    value = int(digits)
    return value if -(2**63) <= value < 2**63 else float(value)


def json_column(name: str, *, default: str = "{}") -> Column[Any]:
    """A JSONB column that is never null."""
    return Column(name, JSONB, nullable=False, server_default=text(f"'{default}'::jsonb"))
