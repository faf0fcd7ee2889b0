"""Write docs/reference/settings.md from the settings themselves.

PYTHONPATH=src python scripts/settings_reference.py
"""

from enum import Enum
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from mlops_platform.core.settings import Settings, env_names, is_secret

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
HEAD = """# Settings of the servers

Everything is read from the environment when a process starts, and nothing else is read. A secret (marked so) can be given
as a file instead: `<NAME>_FILE` holds its path, and is the better way, because an environment leaks with any file read.
`mlops up` generates the secrets that are missing; with `MLOPS_MODE=production` the servers refuse to start with one that
is missing, short, or an example.

This page is generated from the code by `scripts/settings_reference.py`.

| variable | default | meaning |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [_row(name, field) for name, field in Settings.model_fields.items()]
    return HEAD + "\n".join(rows) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    first, *others = env_names(field, name)
    also = f" (or `{'`, `'.join(others)}`)" if others else ""
    secret = " Secret." if is_secret(field) else ""
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{first}`{also} | {_default(field.default)} | {meaning}{secret} |"


def _default(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
