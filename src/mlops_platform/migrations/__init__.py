"""One linear Alembic history."""
