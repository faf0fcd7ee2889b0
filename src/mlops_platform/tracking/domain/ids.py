"""What an id looks like."""

import re

from mlops_platform.contracts.common import ID_PATTERN

_ID = re.compile(ID_PATTERN.removeprefix("^").removesuffix("$"))


def is_id(text: str) -> bool:
    """Whether the text can be the id of anything.

    >>> is_id("0198c0ffee00700080000000deadbeef"), is_id("run-1")
    (True, False)
    """
    return _ID.fullmatch(text) is not None
