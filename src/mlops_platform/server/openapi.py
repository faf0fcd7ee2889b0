"""Writes the reviewed snapshot of the public API: python -m mlops_platform.server.openapi <directory>."""

import json
import sys
from pathlib import Path

from mlops_platform.core.http.app import openapi_document, routes_of
from mlops_platform.server.catalog import CATALOG


def documents() -> dict[str, str]:
    """The OpenAPI document of each service, as it is committed."""
    return {
        entry.service.name: json.dumps(openapi_document(entry.service, routes_of(entry.service)), indent=1, sort_keys=True)
        + "\n"
        for entry in CATALOG
    }


def main() -> None:
    """Write them."""
    target = Path(sys.argv[1])
    for name, document in documents().items():
        (target / f"{name}.json").write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()
