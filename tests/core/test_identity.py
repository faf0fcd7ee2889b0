"""What a principal may do. Every line of the table of roles is written out here a second time, on purpose."""

import time
from uuid import UUID

import pytest

from mlops_platform.core.errors import PermissionDenied
from mlops_platform.core.identity import (
    DEFAULT_PROJECT_NAME,
    VERBS,
    Grant,
    Permission,
    Principal,
    PrincipalId,
    PrincipalKind,
    ProjectId,
    Role,
    new_id,
)

READ, WRITE = Permission("models:read"), Permission("models:write")
PROMOTE, ADMIN = Permission("models:promote"), Permission("models:admin")


def principal(*grants: Grant, scopes: tuple[str, ...] = ("*",)) -> Principal:
    return Principal(PrincipalId("p"), "ada", PrincipalKind.USER, ProjectId("x"), grants, scopes)


class TestRoles:
    @pytest.mark.parametrize(
        ("role", "allowed"),
        [
            ("viewer", {READ}),
            ("contributor", {READ, WRITE}),
            ("service", {READ, WRITE}),
            ("promoter", {READ, WRITE, PROMOTE}),
            ("admin", {READ, WRITE, PROMOTE, ADMIN}),
        ],
    )
    def test_a_role_gives_its_verbs_and_no_other(self, role, allowed):
        who = principal(Grant(Role(role)))
        assert {it for it in (READ, WRITE, PROMOTE, ADMIN, Permission("models:fly")) if who.may(it)} == allowed

    def test_these_are_all_roles_and_all_verbs(self):
        assert {role.value for role in Role} == {"viewer", "contributor", "service", "promoter", "admin"}
        assert {"read", "write", "promote", "admin"} == VERBS

    def test_a_principal_is_a_user_or_a_service(self):
        assert {kind.value for kind in PrincipalKind} == {"user", "service"}

    def test_without_a_grant_nothing_is_allowed(self):
        assert not principal().may(READ)

    def test_a_role_holds_for_every_noun(self):
        assert principal(Grant(Role.VIEWER)).may(Permission("feature_sets:read"))

    def test_the_verb_is_what_stands_behind_the_last_colon(self):
        assert not principal(Grant(Role.VIEWER)).may(Permission("read:write"))
        assert principal(Grant(Role.VIEWER)).may(Permission("models:write:read"))


class TestNames:
    def test_a_grant_with_a_pattern_gives_only_the_names_that_match(self):
        who = principal(Grant(Role.VIEWER, "fraud-*"))
        assert who.may(READ, "fraud-eu")
        assert not who.may(READ, "churn")
        assert not who.may(READ, "Fraud-eu")

    def test_a_grant_with_a_pattern_lets_one_ask_at_all(self):
        assert principal(Grant(Role.VIEWER, "fraud-*")).may(READ)

    def test_the_empty_name_is_a_name_too(self):
        assert not principal(Grant(Role.VIEWER, "fraud-*")).may(READ, "")

    def test_a_wide_grant_for_reading_does_not_widen_a_narrow_one_for_writing(self):
        who = principal(Grant(Role.VIEWER), Grant(Role.CONTRIBUTOR, "fraud-*"))
        assert who.may(READ, "churn")
        assert not who.may(WRITE, "churn")
        assert who.may(WRITE, "fraud-eu")

    def test_the_patterns_of_a_permission_are_those_of_the_grants_that_give_it(self):
        who = principal(Grant(Role.VIEWER, "a*"), Grant(Role.CONTRIBUTOR, "b*"))
        assert who.name_patterns(READ) == ("a*", "b*")
        assert who.name_patterns(WRITE) == ("b*",)
        assert who.name_patterns(ADMIN) == ()

    def test_one_grant_for_everything_lifts_the_limit(self):
        assert principal(Grant(Role.VIEWER, "a*"), Grant(Role.VIEWER)).name_patterns(READ) is None


class TestScopes:
    @pytest.mark.parametrize(
        ("scope", "allowed"),
        [
            ("*", {READ, WRITE}),
            ("models:read", {READ}),
            ("models:*", {READ, WRITE}),
            ("*:write", {WRITE}),
            ("runs:*", set()),
            ("Models:read", set()),
            ("", set()),
        ],
    )
    def test_a_credential_may_what_its_role_and_its_scope_both_give(self, scope, allowed):
        who = principal(Grant(Role.CONTRIBUTOR), scopes=(scope,))
        assert {it for it in (READ, WRITE, ADMIN) if who.may(it)} == allowed

    def test_one_of_several_scopes_is_enough(self):
        assert principal(Grant(Role.VIEWER), scopes=("runs:*", "models:read")).may(READ)

    def test_without_any_scope_nothing_is_allowed(self):
        assert principal(Grant(Role.ADMIN), scopes=()).may(READ) is False

    def test_a_principal_of_no_named_scopes_has_all_of_its_role(self):
        grants = (Grant(Role.VIEWER),)
        who = Principal(PrincipalId("p"), "ada", PrincipalKind.USER, ProjectId("x"), grants)
        assert who.may(READ)
        assert not who.may(WRITE)

    def test_a_scope_never_widens_a_role(self):
        assert not principal(Grant(Role.VIEWER), scopes=("*", "models:write")).may(WRITE)


class TestRequire:
    def test_what_is_allowed_passes(self):
        principal(Grant(Role.VIEWER)).require(READ, "m")

    def test_a_refusal_names_who_what_and_where(self):
        with pytest.raises(PermissionDenied) as caught:
            principal(Grant(Role.VIEWER, "a*")).require(READ, "m")
        for word in ("'ada'", "'models:read'", "on 'm'", f"'{DEFAULT_PROJECT_NAME}'"):
            assert word in str(caught.value)

    def test_a_refusal_without_a_name_speaks_of_none(self):
        with pytest.raises(PermissionDenied) as caught:
            principal(Grant(Role.VIEWER)).require(WRITE)
        assert "the permission 'models:write' in project" in str(caught.value)

    def test_the_default_project_is_called_default(self):
        assert principal().project_name == DEFAULT_PROJECT_NAME == "default"


class TestEverywhere:
    def test_who_has_only_some_names_is_refused_what_concerns_all(self):
        who = principal(Grant(Role.ADMIN, "a*"))
        assert not who.may_everywhere(ADMIN)
        with pytest.raises(PermissionDenied, match="some names only"):
            who.require_everywhere(ADMIN)

    def test_who_has_nothing_is_refused_as_everywhere_else(self):
        assert not principal(Grant(Role.VIEWER)).may_everywhere(ADMIN)
        with pytest.raises(PermissionDenied, match="does not have"):
            principal(Grant(Role.VIEWER)).require_everywhere(ADMIN)

    def test_who_has_every_name_passes(self):
        who = principal(Grant(Role.ADMIN))
        assert who.may_everywhere(ADMIN)
        who.require_everywhere(ADMIN)

    def test_every_name_without_the_scope_is_not_everywhere(self):
        who = principal(Grant(Role.ADMIN), scopes=("models:read",))
        assert not who.may_everywhere(ADMIN)
        with pytest.raises(PermissionDenied):
            who.require_everywhere(ADMIN)


class TestIds:
    def test_an_id_is_a_uuid_of_version_7_in_32_hex_digits(self):
        for _ in range(200):
            made = new_id()
            assert made == UUID(made).hex
            assert (UUID(made).version, UUID(made).variant) == (7, "specified in RFC 4122")

    @pytest.mark.parametrize("milliseconds", [0, 1, 1_794_000_000_123, 2**47 + 1, 2**48 - 1, 2**48 + 5])
    def test_an_id_begins_with_the_milliseconds_of_its_making(self, monkeypatch, milliseconds):
        monkeypatch.setattr(time, "time_ns", lambda: milliseconds * 1_000_000 + 999_999)
        made = new_id()
        assert len(made) == 32
        assert int(made[:12], 16) == milliseconds % 2**48
        assert made[12] == "7"

    def test_an_id_is_of_now(self):
        before = time.time_ns() // 1_000_000
        assert before <= int(new_id()[:12], 16) <= time.time_ns() // 1_000_000

    def test_each_of_its_74_random_bits_is_now_0_and_now_1(self):
        made = [UUID(new_id()).int for _ in range(200)]
        ones = [sum(value >> bit & 1 for value in made) for bit in (*range(62), *range(64, 76))]
        assert min(ones) > 20
        assert max(ones) < 180
        assert len(set(made)) == len(made)
