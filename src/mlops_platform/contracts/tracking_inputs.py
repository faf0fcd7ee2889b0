"""Wire types of what runs read and made: datasets, logged models, and other things by their URN."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from mlops_platform.contracts.common import MAX_INTEGER, Contract, Label, Text
from mlops_platform.contracts.tracking import KeyValueTags, Urn

MAX_MODEL_PARAMS = 1000
MAX_PARAM_TEXT = 6000
ModelName = Annotated[Text, Field(min_length=1, max_length=500, pattern=r"^[^/:.%\"']+$", examples=["churn-model"])]
"""The name of a logged model; need not be unique. These signs have a meaning in MLflow's addresses of models."""

DatasetTags = Annotated[dict[Label, Annotated[Text, Field(max_length=500)]], Field(max_length=100)]


class DatasetUsed(Contract):
    """A dataset that a run read. Name and digest make it the same one in the whole project; the rest is as first told."""

    name: Annotated[Text, Field(min_length=1, max_length=500, examples=["customers"])]
    digest: Annotated[Text, Field(min_length=1, max_length=128, examples=["5f3a9c1e"])]
    source_type: Label = Field("local", examples=["s3"])
    source: Annotated[Text, Field(max_length=65_535, examples=["s3://data/customers.parquet"])] = ""
    columns: Annotated[Text, Field(max_length=1_048_575)] | None = Field(None, examples=['[{"name":"age","type":"int64"}]'])
    profile: Annotated[Text, Field(max_length=1_048_575)] | None = Field(None, examples=['{"rows":4096}'])
    context: Label | None = Field(None, examples=["training"])
    tags: DatasetTags = Field(default_factory=dict)


class RunInputs(Contract):
    """What a run read: datasets by digest; training sets, feature sets, model versions, other runs by URN."""

    inputs: Annotated[list[Urn], Field(max_length=100)] = Field(default_factory=list)
    datasets: Annotated[list[DatasetUsed], Field(max_length=100)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.inputs and not self.datasets:
            raise ValueError("names neither inputs nor datasets")
        return self


class ModelLogged(Contract):
    """A model that a run made. `path` is where its files lie among the run's artifacts."""

    name: ModelName
    model_type: Label | None = Field(None, examples=["scikit-learn"])
    path: Annotated[Text, Field(min_length=1, max_length=1000, examples=["model"])] | None = None
    step: Annotated[int, Field(ge=0, le=MAX_INTEGER)] = 0
    params: Annotated[
        dict[Label, Annotated[Text, Field(max_length=MAX_PARAM_TEXT)]], Field(max_length=MAX_MODEL_PARAMS)
    ] = Field(default_factory=dict)
    tags: KeyValueTags = Field(default_factory=dict)
