"""Everything that can go wrong in the Feature Store."""

from collections.abc import Sequence

from mlops_platform.core.errors import Conflict, FieldError, InvalidInput, NotFound


class FeatureSetNotFound(NotFound):
    """No feature set of this name in the project."""

    code = "feature_set_not_found"
    title = "Feature set not found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no feature set {name!r}.", hint="List what exists: GET /api/feature-sets.")


class FeatureSetNameTaken(Conflict):
    """The name is in use, perhaps by a deleted set that can be restored."""

    code = "feature_set_name_taken"
    title = "Feature set name taken"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A feature set named {name!r} exists already, or was deleted and can be restored.",
            hint="Change it with PATCH, restore it with POST /api/feature-sets/{name}/restore, or choose another name.",
        )


class SchemaChangeRefused(Conflict):
    """Features may be added in place; removing or retyping one takes consent."""

    code = "schema_change_refused"
    title = "Schema change refused"

    def __init__(self, changes: Sequence[str]) -> None:
        super().__init__(
            f"The change would {' and '.join(changes)}, which readers of the present version do not expect.",
            hint='Send "new_version": true to make it a new version, or keep these features in the list.',
        )


class FeatureSetOffline(Conflict):
    """The set is not served online, so there is nothing to materialise."""

    code = "feature_set_offline"
    title = "Feature set is offline"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The feature set {name!r} is not served online.",
            hint='Switch it on first: PATCH /api/feature-sets/{name} with {"online": true}.',
        )


class TrainingSetNotFound(NotFound):
    """No training set of this id in the project."""

    code = "training_set_not_found"
    title = "Training set not found"

    def __init__(self, training_set_id: str) -> None:
        super().__init__(f"There is no training set {training_set_id!r}.")


class UnknownFeature(InvalidInput):
    """A feature that no feature set of the project has."""

    code = "unknown_feature"
    title = "Unknown feature"

    def __init__(self, reference: str) -> None:
        super().__init__(
            f"No feature set has the feature {reference!r}.",
            errors=[FieldError("features", "names a feature that does not exist", reference)],
            hint="List the feature sets and their features: GET /api/feature-sets.",
        )


class AmbiguousFeature(InvalidInput):
    """A plain feature name that several feature sets have."""

    code = "ambiguous_feature"
    title = "Ambiguous feature name"

    def __init__(self, name: str, candidates: Sequence[str]) -> None:
        listed = ", ".join(candidates)
        super().__init__(
            f"The feature name {name!r} stands in several feature sets: {listed}.",
            errors=[FieldError("features", f"could be any of {listed}", name)],
            hint="Write the feature as feature_set:feature.",
        )


class EntityMismatch(InvalidInput):
    """One list of entities cannot be read from feature sets with different entity keys."""

    code = "entity_mismatch"
    title = "Different entity keys"

    def __init__(self, by_set: Sequence[tuple[str, str]]) -> None:
        listed = ", ".join(f"{name} by {entity!r}" for name, entity in by_set)
        super().__init__(
            f"The features asked for belong to different entities: {listed}.",
            errors=[FieldError("features", "belong to feature sets with different entity keys")],
            hint="Ask for the features of each entity in a request of its own.",
        )
