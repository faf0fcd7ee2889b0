"""What lineage edges mean: which end depends on which, and how things are named."""

import re
from dataclasses import dataclass

from mlops_platform.contracts.registry import Relation
from mlops_platform.core.errors import InvalidInput, NotFound

MAX_DEPTH = 20

# `subject relation object`: of these the object depends on the subject; of all others the subject on the object.
_OBJECT_DEPENDS = frozenset({Relation.PRODUCED, Relation.PART_OF, Relation.MEASURED_BY, Relation.CONCLUDED_WITH})
# A subject has one of these at a time: stating the next one ends the one before.
EXCLUSIVE = frozenset({Relation.POINTS_TO})

_URN = re.compile(r"urn:mlops:(?P<project>[0-9a-f]{32}):(?P<rest>.*)", re.DOTALL)
_REST = re.compile(r"(?P<kind>[a-z][a-z0-9-]{0,39}):(?P<name>[!-~]{1,400})")


@dataclass(frozen=True, slots=True)
class Edge:
    """A stated edge, and the same as a dependency: when `source` is wrong, `dependent` is."""

    subject: str
    relation: str
    target: str

    @property
    def dependent(self) -> str:
        """The end that is affected by the other."""
        return self.target if self.relation in _OBJECT_DEPENDS else self.subject

    @property
    def source(self) -> str:
        """The end that affects the other."""
        return self.subject if self.relation in _OBJECT_DEPENDS else self.target


@dataclass(frozen=True, slots=True)
class Urn:
    """The stable name of a thing of one project."""

    project: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"urn:mlops:{self.project}:{self.kind}:{self.name}"

    @property
    def resource(self) -> str:
        """The name that grants are limited by: of `fraud/3` it is `fraud`."""
        return self.name.partition("/")[0]


def known_urn(text: str) -> Urn:
    """The parts of a URN that a service stated; whatever it is, there is an answer."""
    project, kind, name = [*text.removeprefix("urn:mlops:").split(":", 2), "", ""][:3]
    return Urn(project, kind, name)


def read_urn(text: str, project: str, *, field: str) -> Urn:
    """A whole URN, or the short form `<kind>:<name>`, within this project. Another project's things do not exist."""
    whole = _URN.fullmatch(text)
    found = _REST.fullmatch(whole["rest"] if whole else text)
    if found is None or (whole is None and text.startswith("urn:")):
        raise InvalidInput.of(
            field, "must be urn:mlops:<project>:<kind>:<name>, or <kind>:<name>", text, hint="For example model:fraud."
        )
    if whole is not None and whole["project"] != project:
        raise NotFound(f"{field}: there is no {text!r} in this project.")
    return Urn(project, found["kind"], found["name"])
