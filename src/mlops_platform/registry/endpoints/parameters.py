"""What the registry's routes have in common: their path parameters, permissions and page keys."""

from typing import Annotated

from fastapi import Depends, Path, Request

from mlops_platform.contracts.common import NAME_PATTERN
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.http.pages import PageRequest
from mlops_platform.core.http.routing import requires
from mlops_platform.core.identity import Permission
from mlops_platform.registry.domain.paths import check_path
from mlops_platform.registry.repository.models import MODELS_READ

MODELS_WRITE = Permission("models:write")
MODELS_PROMOTE = Permission("models:promote")
MODELS_ADMIN = Permission("models:admin")

READ = requires(MODELS_READ, resource="name")
WRITE = requires(MODELS_WRITE, resource="name")
PROMOTE = requires(MODELS_PROMOTE, resource="name")

ModelName = Annotated[str, Path(pattern=NAME_PATTERN, description="The model's name.")]
VersionLabel = Annotated[str, Path(pattern=NAME_PATTERN, description="The version's label.")]
AliasName = Annotated[str, Path(pattern=NAME_PATTERN, description="The alias, for example `champion`.")]


async def _logical_path(
    request: Request,
    path: Annotated[str, Path(description="The file's logical path within the version, for example `weights/a.bin`.")],
) -> str:
    # The router's pattern passes over a line feed at the end, which would give one file two names.
    return check_path(path if request.scope["path"].endswith(path) else f"{path}\n")


LogicalPath = Annotated[str, Depends(_logical_path)]


def after(page: PageRequest, kind: str) -> str | None:
    """The key after which a page starts. A token carries the list that it is of: one of another list is refused."""
    if page.after is None:
        return None
    if len(page.after) != 2 or page.after[0] != kind:
        raise InvalidInput.of("page_token", "is a token of another list", hint="Begin again without a page_token.")
    return str(page.after[1])
