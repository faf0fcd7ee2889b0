# Generated from sdk/_async/experiments.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""What `platform.tracking` does with experiments."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.tracking import Experiment
from mlops_platform.sdk._sync.client import ServiceClient
from mlops_platform.sdk._sync.listing import Listing
from mlops_platform.sdk.errors import Conflict, NotFound, missing
from mlops_platform.sdk.ids import is_id
from mlops_platform.sdk.wire import given, segment


class Experiments:
    """The part of `platform.tracking` about experiments."""

    _client: ServiceClient

    def create_experiment(
        self, name: str, *, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Experiment:
        body = given(name=name, description=description, tags=tags)
        return self._client.send("POST", "/api/experiments", Experiment, json=body)

    def experiment(self, name_or_id: str) -> Experiment:
        """One experiment, by id or by name."""
        if is_id(name_or_id):
            return self._client.get(Experiment, f"/api/experiments/{segment(name_or_id)}")
        found = self._client.get(Page[Experiment], "/api/experiments", params={"name": name_or_id})
        if not found.items:
            raise missing(f"There is no experiment {name_or_id!r}.", hint="'mlops experiment list' shows what there is.")
        return found.items[0]

    def ensure_experiment(self, name_or_id: str) -> Experiment:
        """The experiment, which is made when it is absent; many processes may ask at once."""
        if is_id(name_or_id):
            return self.experiment(name_or_id)
        try:
            return self.experiment(name_or_id)
        except NotFound:
            try:
                return self.create_experiment(name_or_id)
            except Conflict:
                return self.experiment(name_or_id)

    def experiments(
        self,
        *,
        name_prefix: str | None = None,
        tags: Sequence[str] = (),
        owner: str | None = None,
        deleted: str | None = None,
        archived: str | None = None,
        limit: int | None = None,
    ) -> Listing[Experiment]:
        """By name. `tags` are `key` or `key:value`, all of them; `deleted`, `archived`: `include` or `only`."""
        query = given(name_prefix=name_prefix, tag=list(tags) or None, owner=owner, deleted=deleted, archived=archived)
        return Listing(lambda: self._client.pages(Experiment, "/api/experiments", params=query, limit=limit))

    def update_experiment(self, name_or_id: str, **changes: Any) -> Experiment:
        """Change `name`, `description`, `tags`, `owner` or `retention_days` (0: keep deleted runs)."""
        found = self.experiment(name_or_id)
        return self._client.send("PATCH", f"/api/experiments/{found.id}", Experiment, json=changes)

    def delete_experiment(self, name_or_id: str) -> None:
        """Delete softly; `restore_experiment` takes it back."""
        found = self.experiment(name_or_id)
        self._client.request("DELETE", f"/api/experiments/{found.id}")

    def restore_experiment(self, experiment_id: str) -> Experiment:
        """Bring a deleted or archived experiment back."""
        return self._client.send("POST", f"/api/experiments/{segment(experiment_id)}/restore", Experiment)
