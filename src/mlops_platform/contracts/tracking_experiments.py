"""Wire types of what stands around runs: folders and the end of experiments, comments, saved views."""

from typing import Annotated

from pydantic import Field

from mlops_platform.contracts.common import Answer, Contract, Id, JsonValue, Label, Text, Timestamp
from mlops_platform.contracts.tracking import MAX_ORDER_KEYS

MAX_COMMENT = 20_000
MAX_COLUMNS = 1000
MAX_CHARTS = 100


class ExperimentFolder(Answer):
    """One line of a folder: an experiment of this path, a folder of others below it, or both.

    `experiments` and `runs` count what lies at the path and below it.
    """

    path: str
    name: str
    is_folder: bool
    experiment_id: Id | None = None
    experiments: int
    runs: int
    updated_at: Timestamp


class ExperimentPurge(Contract):
    """Ask what would be removed (`preview`), or remove it for ever, with the experiment's name in `confirm`."""

    preview: bool = True
    confirm: Annotated[Text, Field(max_length=500)] | None = None


class ExperimentContents(Answer):
    """What an experiment holds. `bytes` are those of its artifacts; content that others share stays with them."""

    experiment_id: Id
    name: str
    runs: int
    deleted_runs: int
    artifacts: int
    bytes: int
    metric_points: int
    is_preview: bool


class Baseline(Contract):
    """The run that others of the experiment are compared with."""

    run_id: Id


class CommentWrite(Contract):
    """A comment in Markdown. `@name` mentions somebody, except in code."""

    text: Annotated[Text, Field(min_length=1, max_length=MAX_COMMENT, examples=["Overfits after epoch 3, @grace?"])]


class Comment(Answer):
    """A comment on a run."""

    id: Id
    run_id: Id
    author: str
    text: str
    mentions: list[str]
    created_at: Timestamp
    edited_at: Timestamp | None = None


ViewFilter = Annotated[Text, Field(max_length=10_000, examples=["metrics.accuracy > 0.9"])]
ViewOrder = Annotated[list[Label], Field(max_length=MAX_ORDER_KEYS, examples=[["metrics.accuracy DESC"]])]
ViewColumns = Annotated[list[Label], Field(max_length=MAX_COLUMNS, examples=[["run_name", "metrics.accuracy"]])]
ViewCharts = Annotated[list[JsonValue], Field(max_length=MAX_CHARTS, examples=[[{"kind": "line", "y": "loss"}]])]


class ViewCreate(Contract):
    """A saved view on the runs of an experiment. `columns` are named as in a search; `charts` are the client's own."""

    name: Label
    filter: ViewFilter = ""
    order_by: ViewOrder = Field(default_factory=list)
    columns: ViewColumns = Field(default_factory=list)
    charts: ViewCharts = Field(default_factory=list)


class ViewUpdate(Contract):
    """What to change; a field that is left out stays."""

    name: Label | None = None
    filter: ViewFilter | None = None
    order_by: ViewOrder | None = None
    columns: ViewColumns | None = None
    charts: ViewCharts | None = None


class SavedView(Answer):
    """A saved view; its id is what a link to it carries."""

    id: Id
    experiment_id: Id
    name: str
    filter: str
    order_by: list[str]
    columns: list[str]
    charts: list[JsonValue]
    created_by: str
    created_at: Timestamp
    updated_at: Timestamp
