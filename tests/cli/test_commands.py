"""Commands do against the real services what they say."""

from mlops_platform.core.events import outbox
from mlops_platform.core.identity import new_id


class TestModel:
    async def test_a_version_is_made_shown_and_aliased(self, mlops):
        options = ("--framework", "scikit-learn", "--metric", "accuracy=0.95", "--tag", "production", "--param", "depth=3")
        made = (await mlops("model", "create", "m", "1.0.0", *options, "-o", "json")).json
        assert (made["framework"], made["tags"], made["params"]) == ("scikit-learn", ["production"], {"depth": 3})
        assert (await mlops("model", "alias", "m", "champion", "1.0.0")).code == 0
        assert (await mlops("model", "show", "m", "@champion", "-q")).out == "1.0.0\n"
        assert (await mlops("model", "alias", "m", "champion", "--remove")).code == 0
        assert (await mlops("model", "show", "m", "@champion")).code == 3

    async def test_an_alias_needs_a_version_or_remove(self, mlops):
        assert (await mlops("model", "alias", "m", "champion")).code == 2

    async def test_a_metric_that_is_no_pair_is_wrong_usage(self, mlops):
        outcome = await mlops("model", "create", "m", "--metric", "accuracy")
        assert outcome.code == 2
        assert "--metric" in outcome.err


class TestExperiment:
    async def test_a_tag_stays_the_text_that_was_given(self, mlops):
        tags = {"version": "1.10", "flag": "true", "none": "null", "n": "1e3", "plain": "text"}
        options = [word for key, value in tags.items() for word in ("--tag", f"{key}={value}")]
        assert (await mlops("experiment", "create", f"e-{new_id()}", *options, "-o", "json")).json["tags"] == tags


class TestAuth:
    async def test_whoami(self, mlops):
        assert (await mlops("auth", "whoami", "-o", "json")).json["roles"] == ["admin"]

    async def test_the_life_of_a_key(self, mlops):
        made = (await mlops("auth", "key", "create", "laptop", "-o", "json")).json
        assert (await mlops("auth", "whoami", MLOPS_API_KEY=made["key"])).code == 0
        new = (await mlops("auth", "key", "rotate", made["id"], "-q")).out.strip()
        assert (await mlops("auth", "whoami", MLOPS_API_KEY=new)).code == 0
        assert (await mlops("auth", "key", "revoke", made["id"], "--yes")).code == 0
        assert (await mlops("auth", "whoami", MLOPS_API_KEY=made["key"])).code == 4
        assert made["id"] in (await mlops("auth", "key", "list", "-q")).out

    async def test_a_token_alone_on_standard_output_is_a_credential(self, mlops):
        token = (await mlops("auth", "token", "create", "nightly", "-q")).out.strip()
        assert (await mlops("auth", "whoami", MLOPS_API_KEY="", MLOPS_SERVICE_TOKEN=token)).code == 0

    async def test_a_grant_is_given_listed_and_taken(self, mlops):
        grant = (await mlops("auth", "grant", "bob", "promoter", "--pattern", "fraud-*", "-q")).out.strip()
        assert "fraud-*" in (await mlops("auth", "grants")).out
        assert (await mlops("auth", "ungrant", grant, "--yes")).code == 0

    async def test_a_role_that_is_none_is_refused_by_name(self, mlops):
        outcome = await mlops("auth", "grant", "bob", "emperor")
        assert outcome.code == 1
        assert "role" in outcome.err


class TestProjects:
    async def test_a_project_is_made_and_listed(self, mlops):
        name = f"p-{new_id()}"
        made = await mlops("project", "create", name, "--description", "For a test", "-q")
        assert (made.code, made.out) == (0, f"{name}\n"), made.err
        assert (await mlops("project", "list", "-q")).out


class TestAudit:
    async def test_entries_are_listed_and_the_chain_is_verified(self, mlops):
        await mlops("model", "create", "m", "1")
        listed = (await mlops("audit", "list", "--action", "model_version.created", "-o", "json")).json
        assert len(listed) == 1
        assert (await mlops("audit", "verify", "-o", "json")).json["is_intact"] is True


class TestEvents:
    async def test_the_feed_can_be_followed(self, mlops, runtime):
        assert (await mlops("model", "create", "m", "1")).code == 0
        async with runtime.database.write() as session:
            while await outbox.place(session):
                pass
        outcome = await mlops("events", "tail", "--after", "0", "--type", "model_version.*", "--limit", "1", "-o", "json")
        assert outcome.json["type"] == "model_version.created"
