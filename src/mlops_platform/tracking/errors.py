"""Everything that can go wrong in Experiment Tracking."""

from mlops_platform.core.errors import Conflict, NotFound


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

    @classmethod
    def of(cls, run_id: str, *, experiment_id: str | None = None) -> "RunNotFound":
        where = f" in the experiment {experiment_id!r}" if experiment_id else ""
        return cls(f"No run has the id {run_id!r}{where}.", hint="POST /api/runs/search finds runs.")


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

    @classmethod
    def of(cls, run_id: str) -> "RunDeleted":
        return cls(
            f"The run {run_id!r} is deleted, or its experiment is, and takes no changes.",
            hint=f"POST /api/runs/{run_id}/restore brings it back.",
        )


class ParamChanged(Conflict):
    """A parameter was logged before with another value."""

    code = "param_changed"
    title = "Parameters do not change"


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
