"""Watches every change that any test makes through the API, and finds the routes that write no audit entry.

Each worker notes which routes answered a change with 2xx, and for which of them an entry with the id of the request was
written. At the end of the whole suite a route that never wrote one must stand in docs/reference/audit-exemptions.md. New
services are covered by having tests at all.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.http.app import ServiceApp
from mlops_platform.core.work.runtime import Runtime

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "audit-exemptions.md"
CHANGES = {"POST", "PUT", "PATCH", "DELETE"}


class Watch:
    """What one worker saw."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def over(self, app: ServiceApp) -> None:
        """Look at each access line of an app."""
        add = app.edge._access.add

        def noted(line: dict[str, Any]) -> None:
            if line["method"] in CHANGES and 200 <= line["status"] < 300:
                # The long form of a run's routes is the same handler.
                route = line["route"].replace("/api/experiments/{experiment_id}/runs/", "/api/runs/")
                self._seen.setdefault(f"{line['method']} {route}", set()).add(line["request_id"])
            add(line)

        app.edge._access.add = noted  # type: ignore[method-assign]

    async def routes(self, runtime: Runtime) -> dict[str, bool]:
        """The routes that changed something, and whether any of their requests is in the audit."""
        async with runtime.database.read() as session:
            rows = await session.all(select(audit_entries.c.request_id).distinct())
        audited = {row.request_id for row in rows}
        return {route: not ids.isdisjoint(audited) for route, ids in self._seen.items()}


def exemptions() -> set[str]:
    """The routes that the published page exempts."""
    return set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def silent(seen: Mapping[str, bool]) -> list[str]:
    """Routes that never wrote an entry and are not exempt."""
    return sorted(route for route, is_audited in seen.items() if not is_audited and route not in exemptions())
