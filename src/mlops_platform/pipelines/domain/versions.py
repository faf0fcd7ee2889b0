"""What makes two documents the same version."""

import hashlib
import json

from mlops_platform.contracts.pipelines import PipelineCreate


def content_digest(document: PipelineCreate) -> str:
    """SHA-256 of the canonical JSON of parameters and tasks; the description and the schedule say nothing about content."""
    content = document.model_dump(mode="json", include={"parameters", "tasks"})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
