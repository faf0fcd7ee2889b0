"""What can go wrong in A/B testing."""

from mlops_platform.core.errors import Conflict, NotFound


class ABTestNotFound(NotFound):
    """No test of this name in the project."""

    code = "ab_test_not_found"
    title = "No such A/B test"

    @classmethod
    def named(cls, name: str) -> "ABTestNotFound":
        """The usual sentence."""
        return cls(f"There is no A/B test named {name!r} in this project.")


class ABTestTaken(Conflict):
    """Another test has this name."""

    code = "ab_test_taken"
    title = "The name is taken"

    @classmethod
    def named(cls, name: str) -> "ABTestTaken":
        """The usual sentence."""
        return cls(f"An A/B test named {name!r} exists already.", hint="Choose another name, or delete that test.")


class IllegalTransition(Conflict):
    """The lifecycle does not lead there from here."""

    code = "illegal_transition"
    title = "The test cannot do that now"


class NotRecording(Conflict):
    """The test takes no exposures or outcomes in this state."""

    code = "ab_test_not_recording"
    title = "The test takes no data now"
