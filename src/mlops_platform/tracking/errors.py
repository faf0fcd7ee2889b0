"""Everything that can go wrong in Experiment Tracking."""

from typing import Protocol

from mlops_platform.core.errors import (
    Conflict,
    ContentTooLarge,
    DependencyUnavailable,
    InvalidInput,
    NotFound,
    PlatformError,
)


class Parameter(Protocol):
    """A parameter, as far as a sentence about it needs it."""

    @property
    def key(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def text(self) -> str: ...


def _short(parameter: Parameter) -> str:
    return f"{parameter.text[:200]!r}" if parameter.kind == "string" else parameter.text[:200]


class ExperimentNotFound(NotFound):
    """No experiment has this id in the project."""

    code = "experiment_not_found"
    title = "Experiment not found"

    @classmethod
    def of(cls, experiment_id: str) -> "ExperimentNotFound":
        return cls(f"No experiment has the id {experiment_id!r}.", hint="GET /api/experiments lists them.")


class RunNotFound(NotFound):
    """No run has this id in the project, or in the experiment of the path."""

    code = "run_not_found"
    title = "Run not found"
    run_id: str

    @classmethod
    def of(cls, run_id: str, *, experiment_id: str | None = None) -> "RunNotFound":
        where = f" in the experiment {experiment_id!r}" if experiment_id else ""
        error = cls(f"No run has the id {run_id!r}{where}.", hint="POST /api/runs/search finds runs.")
        error.run_id = run_id
        return error


class MetricNotFound(NotFound):
    """The run has no point of this metric."""

    code = "metric_not_found"
    title = "Metric not found"


class ArtifactNotFound(NotFound):
    """The run has no artifact at this path."""

    code = "artifact_not_found"
    title = "Artifact not found"


class ExperimentNameTaken(Conflict):
    """Another live experiment of the project has the name."""

    code = "experiment_name_taken"
    title = "Experiment name taken"


class ExperimentDeleted(Conflict):
    """The experiment was deleted; it can be read and restored, not written to."""

    code = "experiment_deleted"
    title = "Experiment deleted"

    @classmethod
    def of(cls, experiment_id: str) -> "ExperimentDeleted":
        return cls(
            f"The experiment {experiment_id!r} is deleted and takes no changes.",
            hint=f"POST /api/experiments/{experiment_id}/restore brings it back.",
        )


class RunDeleted(Conflict):
    """The run was deleted; it can be read and restored, not written to."""

    code = "run_deleted"
    title = "Run deleted"
    run_id: str

    @classmethod
    def of(cls, run_id: str) -> "RunDeleted":
        error = cls(
            f"The run {run_id!r} is deleted, or its experiment is, and takes no changes.",
            hint=f"POST /api/runs/{run_id}/restore brings it back.",
        )
        error.run_id = run_id
        return error


class ParamChanged(Conflict):
    """A parameter was logged before with another value."""

    code = "param_changed"
    title = "Parameters do not change"
    run_id: str
    key: str
    old: str
    new: str

    @classmethod
    def of(cls, run_id: str, old: "Parameter", new: "Parameter") -> "ParamChanged":
        error = cls(
            f"The parameter {old.key!r} of run {run_id!r} is {_short(old)} and cannot become {_short(new)}: "
            "parameters do not change. Nothing of this request was kept.",
            hint="Log a corrected value under another key, as a tag, or in a new run.",
        )
        error.run_id, error.key, error.old, error.new = run_id, old.key, old.text[:200], new.text[:200]
        return error


class ArtifactPathTaken(Conflict):
    """A file stands where a folder would have to be, or the other way round."""

    code = "artifact_path_taken"
    title = "Artifact path taken"


class RunIdTaken(Conflict):
    """The id that the caller made belongs to another run, wherever that is."""

    code = "run_id_taken"
    title = "Run id taken"

    @classmethod
    def of(cls, run_id: str) -> "RunIdTaken":
        return cls(
            f"The id {run_id!r} cannot be given to this run.",
            hint="The same request may be repeated; another run needs an id of its own.",
        )


class RunStateConflict(Conflict):
    """The status cannot follow the one that the run has."""

    code = "run_state_conflict"
    title = "Not a possible next status"


class ExperimentArchived(Conflict):
    """The experiment is archived: read as ever, and given no new runs."""

    code = "experiment_archived"
    title = "Experiment archived"

    @classmethod
    def of(cls, experiment_id: str) -> "ExperimentArchived":
        return cls(
            f"The experiment {experiment_id!r} is archived and takes no new runs.",
            hint=f"POST /api/experiments/{experiment_id}/restore brings it back.",
        )


class RunHeld(Conflict):
    """Another process writes the run."""

    code = "run_held"
    title = "Another writer has the run"


class RunNotRunning(Conflict):
    """The run has ended, or was never started: a heartbeat is nothing to it."""

    code = "run_not_running"
    title = "The run is not running"


class RunFellSilent(RunNotRunning):
    """The run was marked failed since no heartbeat came in time: whoever lives after all may resume it."""

    code = "run_fell_silent"
    title = "The run was taken for dead"


class LeaseNotFound(NotFound):
    """Nobody has said that he writes the run."""

    code = "lease_not_found"
    title = "No writer"


class ParamNotFound(NotFound):
    """The run has no parameter of this key."""

    code = "param_not_found"
    title = "Parameter not found"


class TooManyRuns(ContentTooLarge):
    """More runs than one request may change."""

    code = "too_many_runs"
    title = "Too many runs at once"


class RunTooLarge(ContentTooLarge):
    """The run has more metric points than one request copies."""

    code = "run_too_large"
    title = "The run is too large to copy"


class CommentNotFound(NotFound):
    """The run has no such comment."""

    code = "comment_not_found"
    title = "Comment not found"


class ViewNotFound(NotFound):
    """No saved view has this id in the project."""

    code = "view_not_found"
    title = "View not found"


class ViewNameTaken(Conflict):
    """Another view of the experiment has the name."""

    code = "view_name_taken"
    title = "View name taken"


class PurgeNotConfirmed(Conflict):
    """What cannot be undone needs its name repeated."""

    code = "purge_not_confirmed"
    title = "Not confirmed"


class PackageMissing(InvalidInput):
    """The server lacks a Python package that the request needs. Trying again does not help, so this is no 503."""

    code = "package_missing"
    title = "A Python package is missing on the server"


class AnalysisFailed(DependencyUnavailable):
    """The analysis took too long, or more memory than there is."""

    code = "analysis_failed"
    title = "The analysis did not finish"


class LoggedModelNotFound(NotFound):
    """No logged model has this id in the project."""

    code = "logged_model_not_found"
    title = "Logged model not found"

    @classmethod
    def of(cls, model_id: str) -> "LoggedModelNotFound":
        return cls(f"Logged model with ID '{model_id}' not found.")


class SweepNotFound(NotFound):
    """No sweep has this id in the project."""

    code = "sweep_not_found"
    title = "Sweep not found"

    @classmethod
    def of(cls, sweep_id: str) -> "SweepNotFound":
        return cls(f"No sweep has the id {sweep_id!r}.", hint="GET /api/sweeps lists them.")


class TrialNotFound(NotFound):
    """The run is no trial of this sweep."""

    code = "trial_not_found"
    title = "Trial not found"

    @classmethod
    def of(cls, sweep_id: str, run_id: str) -> "TrialNotFound":
        return cls(
            f"The run {run_id!r} is no trial of the sweep {sweep_id!r}.",
            hint=f"GET /api/sweeps/{sweep_id}/trials lists them.",
        )


class TrialEnded(Conflict):
    """The trial was told otherwise before, or given back and handed out again."""

    code = "trial_ended"
    title = "The trial has ended"


class NotAnImage(InvalidInput):
    """By its content the file is no image that may be shown."""

    code = "not_an_image"
    title = "Not an image"


class ModelTooLarge(ContentTooLarge):
    """More points speak of a logged model than one answer holds."""

    code = "model_too_large"
    title = "The logged model is too large to export"

    @classmethod
    def of(cls, model_id: str, limit: int) -> "ModelTooLarge":
        return cls(f"More than {limit} metric points speak of the logged model 'm-{model_id}'.")


class ImportIdTaken(Conflict):
    """The id of an experiment that is brought in is still that of one that is being removed."""

    code = "import_id_taken"
    title = "Still being removed"

    @classmethod
    def of(cls, experiment_id: str) -> "ImportIdTaken":
        return cls(
            f"The experiment {experiment_id!r} was purged, and its runs are still being removed.",
            hint="Import it again in a minute.",
        )


class ImportIncomplete(Conflict):
    """Something that is to be finished lacks points or files, or is under no import."""

    code = "import_incomplete"
    title = "The import is not complete"


class MlflowInvalid(PlatformError):
    """On MLflow's wire: a value that cannot be, in MLflow's words."""

    status = 400
    code = "INVALID_PARAMETER_VALUE"
    title = "Invalid parameter"


class MlflowExists(PlatformError):
    """On MLflow's wire: the name is taken."""

    status = 400
    code = "RESOURCE_ALREADY_EXISTS"
    title = "Exists already"


class MlflowMissing(PlatformError):
    """On MLflow's wire: what was asked for is not there."""

    status = 404
    code = "RESOURCE_DOES_NOT_EXIST"
    title = "Not found"
