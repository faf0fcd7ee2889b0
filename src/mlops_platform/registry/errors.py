"""Everything that can go wrong in the Model Registry."""

from mlops_platform.core.errors import Conflict, NotFound


class ModelNotFound(NotFound):
    """No such model in this project."""

    code = "model_not_found"


class ModelVersionNotFound(NotFound):
    """No such version of this model."""

    code = "model_version_not_found"


class AliasNotFound(NotFound):
    """No such alias on this model."""

    code = "alias_not_found"


class ModelVersionTaken(Conflict):
    """A (name, version) pair is given once and for ever, deleted ones included."""

    code = "model_version_taken"


class ModelVersionImmutable(Conflict):
    """A version that is `ready` does not change."""

    code = "model_version_immutable"


class ModelVersionAliased(Conflict):
    """A version that an alias points to cannot be deleted."""

    code = "model_version_aliased"


class ModelVersionPending(Conflict):
    """A version that is not `ready` is not handed out as a whole."""

    code = "model_version_pending"


class ArtifactNotFound(NotFound):
    """No such file in this version, or no file at all."""

    code = "artifact_not_found"


class ArtifactPathTaken(Conflict):
    """A path cannot be a file and a folder at once."""

    code = "artifact_path_taken"


class TooManyArtifacts(Conflict):
    """A version has as many files as it may have."""

    code = "too_many_artifacts"


class ManifestIncomplete(Conflict):
    """What the manifest says and what is stored differ."""

    code = "manifest_incomplete"
