"""What can go wrong in the Pipeline Orchestrator."""

from mlops_platform.core.errors import Conflict, InvalidInput, NotFound


class PipelineNotFound(NotFound):
    """No such pipeline in this project, or it is deleted."""

    code = "pipeline_not_found"
    title = "Pipeline not found"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no pipeline named {name!r} in this project.",
            hint="GET /api/pipelines lists them; a deleted one can be restored with POST /api/pipelines/{name}/restore.",
        )


class PipelineVersionNotFound(NotFound):
    """The pipeline exists, this version of it does not."""

    code = "pipeline_version_not_found"
    title = "Pipeline version not found"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"Pipeline {name!r} has no version {version}.")


class ScheduleNotFound(NotFound):
    """The pipeline has no schedule."""

    code = "schedule_not_found"
    title = "Schedule not found"

    def __init__(self, name: str) -> None:
        super().__init__(f"Pipeline {name!r} has no schedule.", hint="Set one with PUT /api/pipelines/{name}/schedule.")


class PipelineRunNotFound(NotFound):
    """No such run in this project."""

    code = "pipeline_run_not_found"
    title = "Pipeline run not found"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"There is no pipeline run {run_id!r} in this project.")


class TaskRunNotFound(NotFound):
    """The run exists and has no such task."""

    code = "task_run_not_found"
    title = "Task not found in this run"

    def __init__(self, task: str, run_id: str) -> None:
        super().__init__(f"Pipeline run {run_id!r} has no task {task!r}.")


class PipelineDeleted(Conflict):
    """The name belongs to a deleted pipeline."""

    code = "pipeline_deleted"
    title = "The pipeline is deleted"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Pipeline {name!r} is deleted and keeps its name.",
            hint="Restore it with POST /api/pipelines/{name}/restore, or choose another name.",
        )


class IllegalTransition(Conflict):
    """The state machine has no such edge."""

    code = "illegal_transition"
    title = "Not possible in this state"

    def __init__(self, what: str, current: str, target: str) -> None:
        super().__init__(f"The {what} is {current} and cannot become {target}.")


class PipelineInvalid(InvalidInput):
    """The document is well-formed and does not describe a graph that can run."""

    code = "pipeline_invalid"
    title = "The pipeline is not valid"


class ParametersInvalid(InvalidInput):
    """The parameters of a run do not fit those that the pipeline declares."""

    code = "parameters_invalid"
    title = "The parameters are not valid"


class ScheduleInvalid(InvalidInput):
    """The cron line or the time zone cannot be read."""

    code = "schedule_invalid"
    title = "The schedule is not valid"


class UnresolvableReference(Exception):
    """A reference in a task's arguments names something that the run does not have. Fails the attempt, not a request."""
