"""The client against the real services, in process."""

import pytest

from mlops_platform.core.identity import PrincipalKind, Role
from mlops_platform.sdk import AsyncPlatform
from mlops_platform.sdk.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, Unauthenticated
from tests.conftest import Platform as RunningPlatform


@pytest.fixture
async def sdk(sdk_for, platform: RunningPlatform):
    """A client with the key of an admin of a fresh project."""
    key, _ = await platform.key(await platform.project())
    async with sdk_for(key) as client:
        yield client


class TestRegistry:
    async def test_a_version_is_made_and_read_back(self, sdk: AsyncPlatform):
        made = await sdk.registry.create_version(
            "my-classifier-v1", "1.0.0", framework="scikit-learn", metrics={"accuracy": 0.95}, tags=["production"]
        )
        assert made == await sdk.registry.get_version("my-classifier-v1", "1.0.0")
        assert [model.name async for model in sdk.registry.models(tags=["production"])] == ["my-classifier-v1"]
        assert [model.name async for model in sdk.registry.models(tags=["staging"])] == []

    async def test_nan_in_metrics_travels_there_and_back(self, sdk: AsyncPlatform):
        made = await sdk.registry.create_version("m", metrics={"loss": float("nan"), "best": float("-inf")})
        assert made.metrics["loss"] != made.metrics["loss"]
        assert made.metrics["best"] == float("-inf")

    async def test_the_same_version_twice_is_a_conflict_with_its_code(self, sdk: AsyncPlatform):
        await sdk.registry.create_version("m", "1")
        with pytest.raises(Conflict) as caught:
            await sdk.registry.create_version("m", "1")
        assert caught.value.code == "model_version_taken"
        assert caught.value.request_id

    async def test_a_field_that_is_wrong_is_named(self, sdk: AsyncPlatform):
        with pytest.raises(InvalidRequest) as caught:
            await sdk.registry.create_version("../etc", "1")
        assert caught.value.errors[0].field == "name"

    async def test_what_is_absent_is_not_found(self, sdk: AsyncPlatform):
        with pytest.raises(NotFound):
            await sdk.registry.get_version("absent", "1")

    async def test_an_alias_moves_and_leads_to_its_version(self, sdk: AsyncPlatform):
        for version in ("1", "2"):
            await sdk.registry.create_version("m", version)
            await sdk.registry.set_alias("m", "champion", version)
        assert (await sdk.registry.get_version("m", "@champion")).version == "2"
        await sdk.registry.remove_alias("m", "champion")
        with pytest.raises(NotFound):
            await sdk.registry.get_version("m", "@champion")

    async def test_a_deleted_model_comes_back(self, sdk: AsyncPlatform):
        await sdk.registry.create_version("m", "1")
        await sdk.registry.delete_model("m")
        with pytest.raises(NotFound):
            await sdk.registry.get_model("m")
        assert (await sdk.registry.restore_model("m")).version_count == 1

    async def test_pages_go_on_until_the_limit(self, sdk: AsyncPlatform):
        for number in range(5):
            await sdk.registry.create_version("m", str(number))
        assert [item.version async for item in sdk.registry.versions("m", limit=3)] == ["4", "3", "2"]


class TestAdmin:
    async def test_whoami_says_who_and_where(self, sdk_for, platform: RunningPlatform):
        project = await platform.project()
        key, name = await platform.key(project, Role.VIEWER)
        async with sdk_for(key) as client:
            found = await client.admin.whoami()
        assert (found.principal, found.project_id, found.roles) == (name, project, ["viewer"])

    async def test_a_viewer_may_not_write(self, sdk_for, platform: RunningPlatform):
        key, _ = await platform.key(await platform.project(), Role.VIEWER)
        async with sdk_for(key) as client:
            with pytest.raises(PermissionDenied):
                await client.registry.create_version("m", "1")

    async def test_a_made_key_works_until_it_is_revoked(self, sdk: AsyncPlatform, sdk_for):
        made = await sdk.admin.create_key("laptop", expires_in_days=None)
        assert made.expires_at is None
        assert made.id in [key.id async for key in sdk.admin.api_keys()]
        async with sdk_for(made.key) as client:
            await client.admin.whoami()
            await sdk.admin.revoke_key(made.id)
            with pytest.raises(Unauthenticated):
                await client.admin.whoami()

    async def test_a_rotated_key_has_a_successor(self, sdk: AsyncPlatform, sdk_for):
        made = await sdk.admin.create_key("laptop")
        new = await sdk.admin.rotate_key(made.id, overlap_seconds=60)
        for key in (made.key, new.key):
            async with sdk_for(key) as client:
                await client.admin.whoami()

    async def test_a_service_token_is_a_credential_and_names_the_end_user(self, sdk_for, platform: RunningPlatform):
        key, _ = await platform.key(await platform.project(), Role.SERVICE, kind=PrincipalKind.SERVICE)
        async with sdk_for(key) as service:
            token = await service.admin.create_token("nightly", on_behalf_of="ada", ttl_seconds=60)
        async with sdk_for(token.token) as client:
            assert (await client.admin.whoami()).on_behalf_of == "ada"

    async def test_grants_are_given_and_taken(self, sdk: AsyncPlatform):
        given = await sdk.admin.grant("bob", "promoter", pattern="fraud-*")
        assert given.id in [grant.id async for grant in sdk.admin.grants()]
        await sdk.admin.revoke_grant(given.id)
        assert given.id not in [grant.id async for grant in sdk.admin.grants()]

    async def test_the_audit_record_names_what_was_done(self, sdk: AsyncPlatform):
        await sdk.registry.create_version("m", "1")
        actions = [entry.action async for entry in sdk.admin.audit()]
        assert "model_version.created" in actions

    async def test_health_and_readiness_answer(self, sdk: AsyncPlatform):
        assert (await sdk.admin.health()).status == "healthy"
        assert (await sdk.admin.readiness()).status == "ready"
