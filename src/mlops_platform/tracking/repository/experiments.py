"""Statements on experiments."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, cast, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from mlops_platform.contracts.tracking import DeletedFilter
from mlops_platform.core.auth.visibility import SOMEONE, Someone, in_project, names_allowed, seen_by, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession, violated_constraint
from mlops_platform.core.identity import Permission, Principal
from mlops_platform.core.query.tree import Expression, Field, Order
from mlops_platform.tracking.repository.keyset import beyond
from mlops_platform.tracking.repository.listing import Listing
from mlops_platform.tracking.tables import experiments, run_counts

EXPERIMENTS_READ = Permission("experiments:read")
LIVE_NAME = "experiments_live_name_key"
# Two that are both called Default, made at once, would both be number 0.
UNIQUE = {LIVE_NAME, "experiments_number_key"}
COLUMNS = {name: experiments.c[name] for name in ("name", "number", "created_at", "updated_at")}
NEWEST = Order(Field("created_at"), descending=True)
BY_NUMBER = Order(Field("number"))
SHARDS = 8


def readable(principal: Principal | Someone) -> ColumnElement[bool]:
    """The condition on `experiments` for what the principal may read by its name; what is being removed is gone."""
    allowed = names_allowed(principal, EXPERIMENTS_READ, experiments.c.name)
    present = experiments.c.purged_at.is_(None)
    return present if allowed is None else and_(present, allowed)


def current() -> tuple[ColumnElement[bool], ...]:
    """The condition on `experiments` for those that are shown without being named."""
    return experiments.c.deleted_at.is_(None), experiments.c.archived_at.is_(None)


class ExperimentReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def experiment(self, experiment_id: str) -> Record | None:
        """One experiment, deleted or not, with the counts of its runs."""
        return await self._first(_COUNTED, experiment_id)

    async def uncounted(self, experiment_id: str) -> Record | None:
        """The same without the counts."""
        return await self._first(_EXPERIMENT, experiment_id)

    async def numbered(self, number: int) -> Record | None:
        """The experiment with this number, deleted or not."""
        statement = visible_to(self._principal, experiments).where(experiments.c.number == number)
        return await self._session.first(statement.where(readable(self._principal)))

    async def named(self, name: str) -> Record | None:
        """The live experiment of this name, else the one of this name that was deleted last."""
        statement = visible_to(self._principal, experiments).where(experiments.c.name == name)
        newest = (experiments.c.deleted_at.desc().nulls_first(), experiments.c.id.desc())
        return await self._session.first(statement.where(readable(self._principal)).order_by(*newest).limit(1))

    async def named_live(self, name: str) -> bool:
        """Whether a live experiment has the name, one that the principal may not read too."""
        statement = visible_to(self._principal, experiments).where(experiments.c.name == name)
        return await self._session.first(statement.where(experiments.c.deleted_at.is_(None))) is not None

    async def of_numbers(self, numbers: Sequence[int]) -> Sequence[Record]:
        """Those of these that there are, deleted or not."""
        statement = visible_to(self._principal, experiments).where(experiments.c.number.in_(numbers))
        return await self._session.all(statement.where(readable(self._principal)))

    async def of_ids(self, ids: Collection[str]) -> dict[str, Record]:
        """The experiments with these ids."""
        statement = visible_to(self._principal, experiments).where(experiments.c.id.in_(ids))
        return {row.id: row for row in await self._session.all(statement.where(readable(self._principal)))}

    async def search(
        self,
        tree: Expression | None,
        order: Sequence[Order],
        *,
        deleted: DeletedFilter,
        limit: int,
        after: Sequence[Any] | None = None,
    ) -> Sequence[Record]:
        """Experiments by a filter; without an order the newest first."""
        listing = Listing(COLUMNS, tags=experiments.c.tags)
        statement = visible_to(self._principal, experiments).where(readable(self._principal), listing.condition(tree))
        match deleted:
            case DeletedFilter.EXCLUDE:
                statement = statement.where(experiments.c.deleted_at.is_(None))
            case DeletedFilter.ONLY:
                statement = statement.where(experiments.c.deleted_at.is_not(None))
        keys = (*order, *(() if order else (NEWEST,)), BY_NUMBER)
        return await self._session.all(listing.page(statement, keys, limit=limit, after=after))

    async def experiments(
        self,
        *,
        name: str | None,
        prefix: str | None,
        tags: Sequence[str],
        deleted: DeletedFilter,
        archived: DeletedFilter = DeletedFilter.EXCLUDE,
        owner: str | None = None,
        after: tuple[Any, ...] | None,
        limit: int,
    ) -> Sequence[Record]:
        """Experiments by name. A tag is `key` or `key:value`."""
        statement = _counted(self._principal)
        if name is not None:
            statement = statement.where(experiments.c.name == name)
        if prefix:
            statement = statement.where(experiments.c.name.startswith(prefix, autoescape=True))
        for tag in tags:
            statement = statement.where(_tagged(tag))
        if owner is not None:
            statement = statement.where(func.coalesce(experiments.c.owner, experiments.c.created_by) == owner)
        for column, wanted in ((experiments.c.deleted_at, deleted), (experiments.c.archived_at, archived)):
            if wanted is not DeletedFilter.INCLUDE:
                statement = statement.where(column.is_(None) if wanted is DeletedFilter.EXCLUDE else column.is_not(None))
        place = (experiments.c.name, experiments.c.id)
        if after is not None:
            statement = statement.where(beyond(place, after))
        return await self._session.all(statement.order_by(*place).limit(limit))

    async def _first(self, statement: Select[Any], experiment_id: str) -> Record | None:
        seen = seen_by(self._principal, EXPERIMENTS_READ)
        return await self._session.first(statement, {**seen, "experiment": experiment_id})


def _counted(principal: Principal | Someone) -> Select[Any]:
    by_status = (
        select(run_counts.c.status, cast(func.sum(run_counts.c.runs), BigInteger).label("runs"))
        .where(run_counts.c.experiment_id == experiments.c.id)
        .group_by(run_counts.c.status)
        .correlate(experiments)
        .subquery("by_status")
    )
    counts = select(func.jsonb_object_agg(by_status.c.status, by_status.c.runs)).scalar_subquery()
    return visible_to(principal, experiments).where(readable(principal)).add_columns(counts.label("runs"))


_IS_IT = experiments.c.id == bindparam("experiment")
_COUNTED = _counted(SOMEONE).where(_IS_IT)
_EXPERIMENT = visible_to(SOMEONE, experiments).where(readable(SOMEONE), _IS_IT)
_HELD = _EXPERIMENT.with_for_update()


class ExperimentRepository(ExperimentReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def add(self, values: Mapping[str, Any]) -> bool:
        """Insert; False when a live experiment has the name."""
        row = {**values, "project_id": self._principal.project}
        return await self._keeping_names_unique(insert(experiments).values(row))

    async def change(self, experiment_id: str, values: Mapping[str, Any]) -> bool:
        """Change columns; False when a live experiment has the name."""
        mine = in_project(self._principal, experiments)
        return await self._keeping_names_unique(
            update(experiments).where(mine, experiments.c.id == experiment_id).values(values)
        )

    async def hold(self, experiment_id: str) -> Record | None:
        """The row, held until the commit."""
        return await self._first(_HELD, experiment_id)

    async def count(self, experiment_id: str, run_id: str, changes: Mapping[str, int]) -> None:
        """Add to the counts by status."""
        await self.count_each([(experiment_id, run_id, status, change) for status, change in changes.items()])

    async def count_each(self, changes: Iterable[tuple[str, str, str, int]]) -> None:
        """Add to the counts for many runs. Sharded by run, so that runs made at once do not queue for one row."""
        sums: Counter[tuple[str, int, str]] = Counter()
        for experiment_id, run_id, status, change in changes:
            sums[experiment_id, int(run_id[-2:], 16) % SHARDS, status] += change
        given = [(*place, change) for place, change in sorted(sums.items()) if change]
        if given:
            await self._session.fetch(_COUNT, self._principal.project, *zip(*given, strict=True))

    async def _keeping_names_unique(self, statement: Any) -> bool:
        try:
            async with self._session.savepoint():
                await self._session.execute(statement)
        except IntegrityError as error:
            if violated_constraint(error) in UNIQUE:
                return False
            raise
        return True


_COUNT = """
    INSERT INTO tracking.run_counts AS kept (project_id, experiment_id, shard, status, runs)
    SELECT $1, given.* FROM unnest($2::uuid[], $3::int[], $4::text[], $5::bigint[]) AS given
    ON CONFLICT (experiment_id, shard, status) DO UPDATE SET runs = kept.runs + excluded.runs"""


def _tagged(tag: str) -> ColumnElement[bool]:
    """A key may hold colons itself, so `a:b` is the key `a` with the value `b`, or the key `a:b`."""
    key, colon, value = tag.partition(":")
    has_key: ColumnElement[bool] = experiments.c.tags.has_key(tag)
    if not colon:
        return has_key
    return or_(experiments.c.tags.contains({key: value}), has_key)
