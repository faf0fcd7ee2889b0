import pytest
from sqlalchemy import Column, MetaData, Table, Text, column, select, values
from sqlalchemy.dialects import postgresql

from mlops_platform.core.auth.visibility import SOMEONE, in_project, names_allowed, seen_by, visible_to
from mlops_platform.core.db.schema import project_column
from mlops_platform.core.identity import Grant, Permission, Principal, PrincipalId, PrincipalKind, ProjectId, Role, new_id

READ = Permission("toys:read")
WRITE = Permission("toys:write")
NAMES = ["a", "ab", "a_b", "axb", "a%b", "a.b", "A", "fraud-eu", "fraud-us", "fraudx", "100%", "1005", "a\\b", "[a]"]
toys = Table("toys", MetaData(), project_column(), Column("name", Text))


def principal(*grants: Grant, scopes=("*",)) -> Principal:
    return Principal(PrincipalId("p"), "ada", PrincipalKind.USER, ProjectId(new_id()), grants, scopes)


class TestPatterns:
    @pytest.mark.parametrize(
        "pattern",
        ["*", "a", "a_b", "a%b", "a?b", "a*", "*b", "fraud-*", "fraud?", "100%", "?", "??", "*.*", "A*", "a\\b", "_", "%"],
    )
    async def test_sql_and_python_agree_on_every_name(self, runtime, pattern):
        """`_` and `%` stand for themselves: what SQL shows is what `may` allows."""
        who = principal(Grant(Role.VIEWER, pattern))
        names = values(column("name", Text), name="t").data([(name,) for name in NAMES])
        condition = names_allowed(who, READ, names.c.name)
        statement = select(names.c.name) if condition is None else select(names.c.name).where(condition)
        async with runtime.database.read() as session:
            shown = {row.name for row in await session.all(statement)}
            limit = names_allowed(SOMEONE, READ, names.c.name)
            assert limit is not None
            once = select(names.c.name).where(limit)
            shown_by_one_for_all = {row.name for row in await session.all(once, seen_by(who, READ))}
        assert shown == {name for name in NAMES if who.may(READ, name)}
        assert shown_by_one_for_all == shown

    async def test_without_any_grant_nothing_is_shown(self, runtime):
        names = values(column("name", Text), name="t").data([(name,) for name in NAMES])
        condition = names_allowed(principal(), READ, names.c.name)
        assert condition is not None
        async with runtime.database.read() as session:
            assert await session.all(select(names.c.name).where(condition)) == []
            limit = names_allowed(SOMEONE, READ, names.c.name)
            assert limit is not None
            once = select(names.c.name).where(limit)
            assert await session.all(once, seen_by(principal(), READ)) == []

    def test_a_pattern_for_writing_does_not_widen_reading(self):
        who = principal(Grant(Role.VIEWER, "a*"), Grant(Role.CONTRIBUTOR, "b*"))
        assert set(who.name_patterns(READ) or ()) == {"a*", "b*"}
        assert who.name_patterns(WRITE) == ("b*",)
        assert not who.may(WRITE, "ab")

    def test_every_name_is_more_than_some_names(self):
        assert principal(Grant(Role.ADMIN)).may_everywhere(WRITE)
        assert not principal(Grant(Role.ADMIN, "a*")).may_everywhere(WRITE)
        assert not principal(Grant(Role.VIEWER), Grant(Role.ADMIN, "a*")).may_everywhere(WRITE)
        assert not principal(Grant(Role.ADMIN), scopes=("*:read",)).may_everywhere(WRITE)


class TestScopes:
    @pytest.mark.parametrize("scopes", [("toys:read",), ("*:read",), ("toys:*",), ("*",), ("models:write",), ()])
    @pytest.mark.parametrize("role", list(Role))
    def test_a_scope_never_gives_what_the_role_does_not(self, role, scopes):
        for permission in (READ, WRITE, Permission("toys:promote"), Permission("toys:admin")):
            assert principal(Grant(role), scopes=scopes).may(permission) <= principal(Grant(role)).may(permission)

    def test_a_scope_narrows(self):
        who = principal(Grant(Role.ADMIN), scopes=("toys:read",))
        assert who.may(READ)
        assert not who.may(WRITE)
        assert not who.may(Permission("models:read"))
        assert not who.may(Permission("stoys:read"))


class TestProject:
    def test_a_select_starts_in_the_project(self):
        who = principal()
        compiled = visible_to(who, toys).compile(dialect=postgresql.dialect())
        assert "WHERE toys.project_id = " in str(compiled)
        assert who.project in compiled.params.values()

    def test_each_table_of_a_join_is_limited(self):
        other = Table("other", MetaData(), project_column())
        condition = str(in_project(principal(), toys, other))
        assert "toys.project_id = " in condition
        assert "other.project_id = " in condition
