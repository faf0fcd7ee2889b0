"""What `platform.tracking` does with experiments."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.tracking import Experiment
from mlops_platform.sdk._async.client import AsyncServiceClient
from mlops_platform.sdk._async.listing import AsyncListing
from mlops_platform.sdk.errors import Conflict, NotFound, missing
from mlops_platform.sdk.ids import is_id
from mlops_platform.sdk.wire import given, segment


class AsyncExperiments:
    """The part of `platform.tracking` about experiments."""

    _client: AsyncServiceClient

    async def create_experiment(
        self, name: str, *, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Experiment:
        body = given(name=name, description=description, tags=tags)
        return await self._client.send("POST", "/api/experiments", Experiment, json=body)

    async def experiment(self, name_or_id: str) -> Experiment:
        """One experiment, by id or by name."""
        if is_id(name_or_id):
            return await self._client.get(Experiment, f"/api/experiments/{segment(name_or_id)}")
        found = await self._client.get(Page[Experiment], "/api/experiments", params={"name": name_or_id})
        if not found.items:
            raise missing(f"There is no experiment {name_or_id!r}.", hint="'mlops experiment list' shows what there is.")
        return found.items[0]

    async def ensure_experiment(self, name_or_id: str) -> Experiment:
        """The experiment, which is made when it is absent; many processes may ask at once."""
        if is_id(name_or_id):
            return await self.experiment(name_or_id)
        try:
            return await self.experiment(name_or_id)
        except NotFound:
            try:
                return await self.create_experiment(name_or_id)
            except Conflict:
                return await self.experiment(name_or_id)

    def experiments(
        self,
        *,
        name_prefix: str | None = None,
        tags: Sequence[str] = (),
        owner: str | None = None,
        deleted: str | None = None,
        archived: str | None = None,
        limit: int | None = None,
    ) -> AsyncListing[Experiment]:
        """By name. `tags` are `key` or `key:value`, all of them; `deleted`, `archived`: `include` or `only`."""
        query = given(name_prefix=name_prefix, tag=list(tags) or None, owner=owner, deleted=deleted, archived=archived)
        return AsyncListing(lambda: self._client.pages(Experiment, "/api/experiments", params=query, limit=limit))

    async def update_experiment(self, name_or_id: str, **changes: Any) -> Experiment:
        """Change `name`, `description`, `tags`, `owner` or `retention_days` (0: keep deleted runs)."""
        found = await self.experiment(name_or_id)
        return await self._client.send("PATCH", f"/api/experiments/{found.id}", Experiment, json=changes)

    async def delete_experiment(self, name_or_id: str) -> None:
        """Delete softly; `restore_experiment` takes it back."""
        found = await self.experiment(name_or_id)
        await self._client.request("DELETE", f"/api/experiments/{found.id}")

    async def restore_experiment(self, experiment_id: str) -> Experiment:
        """Bring a deleted or archived experiment back."""
        return await self._client.send("POST", f"/api/experiments/{segment(experiment_id)}/restore", Experiment)
