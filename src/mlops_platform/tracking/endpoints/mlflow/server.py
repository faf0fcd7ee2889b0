"""What a server of MLflow says about itself."""

from starlette.responses import Response

from mlops_platform.core.http.routing import platform_router
from mlops_platform.tracking.endpoints.mlflow.wire import INFO, answer, on_wire
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ

router = platform_router(tags=["mlflow"])


@on_wire(router, "GET", "/server-info", permission=EXPERIMENTS_READ, prefixes=INFO)
async def server_info() -> Response:
    """Which optional parts of the protocol are here. A client asks once and goes by it."""
    return answer(
        {
            "store_type": "SqlStore",
            "workspaces_enabled": False,
            "trace_archival_enabled": False,
            "multipart_uploads_enabled": True,
            "multipart_downloads_enabled": False,
            "artifact_serving_enabled": True,
            "presigned_upload_run_id_supported": False,
            "presigned_upload_model_id_supported": False,
            "model_artifact_presigned_downloads_supported": False,
            "features_enabled": {},
            "tracking_auth": "",
            "artifacts_presigned_only": False,
        }
    )
