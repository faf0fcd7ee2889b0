"""An MLflow tracking server, over its own wire. It is read, page by page, and never written to."""

import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx2
from pydantic_core import from_json

from mlops_platform.sdk.errors import NotFound, PlatformUnreachable, UnexpectedAnswer, api_error
from mlops_platform.sdk.mlflow.store import Fields, MlflowStore, Point, StoredFile
from mlops_platform.sdk.retry import RetryPolicy
from mlops_platform.sdk.settings import ClientSettings, is_loopback
from mlops_platform.sdk.transfer import Unreadable

API = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
RUNS_A_PAGE = 200
POINTS_A_PAGE = 25_000
MODELS_A_PAGE = 50
ATTEMPTS = 4
MOST_FOLDERS = 100_000
MOST_UNLISTED = 5 * 1024**3
"""Largest file of which the server does not list how large it is."""
_IN_MEMORY = 4 * 1024 * 1024


class RestStore(MlflowStore):
    """A server at an address. `authorization` is the whole header, for those that ask for one."""

    def __init__(self, url: str, settings: ClientSettings, authorization: str | None) -> None:
        super().__init__()
        self._http = _Http(url, settings, authorization)

    def experiments(self) -> Iterator[Fields]:
        body = {"max_results": 1000, "view_type": "ALL", "order_by": ["experiment_id ASC"]}
        yield from self._searched(f"{API}/experiments/search", body, "experiments")

    def runs(self, experiment_id: str) -> Iterator[Fields]:
        body = {
            "experiment_ids": [experiment_id],
            "run_view_type": "ALL",
            "max_results": RUNS_A_PAGE,
            "order_by": ["attributes.start_time ASC"],
        }
        yield from self._searched(f"{API}/runs/search", body, "runs")

    def started(self, experiment_id: str, run_id: str) -> int | None:
        try:
            info = self._get(f"{API}/runs/get", {"run_id": run_id})["run"]["info"]
        except NotFound:
            return None
        return int(info.get("start_time") or 0) if str(info.get("experiment_id")) == experiment_id else None

    def history(self, run: Fields, key: str) -> Iterator[Point]:
        query: dict[str, Any] = {"run_id": run["info"]["run_id"], "metric_key": key, "max_results": POINTS_A_PAGE}
        while True:
            page = self._get(f"{API}/metrics/get-history", query)
            for it in page.get("metrics") or ():
                yield int(it["timestamp"]), int(it.get("step") or 0), float(it["value"])
            if not page.get("next_page_token"):
                return
            query["page_token"] = page["next_page_token"]

    def models(self, experiment_id: str) -> Iterator[Fields]:
        body = {"experiment_ids": [experiment_id], "max_results": MODELS_A_PAGE}
        try:
            yield from self._searched(f"{API}/logged-models/search", body, "models")
        except NotFound:
            # A server of before 3.0 has none.
            return

    def files(self, run: Fields) -> Iterator[StoredFile]:
        info = run["info"]
        query = {"run_id": info["run_id"]}
        for path, size in self._tree(f"{API}/artifacts/list", query, "path", f"run {info['run_id']}"):
            yield self._file(str(info.get("artifact_uri") or ""), path, size, "/get-artifact", {**query, "path": path})

    def model_files(self, model: Fields) -> Iterator[StoredFile]:
        info = model["info"]
        listing = f"{API}/logged-models/{quote(info['model_id'], safe='')}/artifacts/directories"
        aside = f"/ajax-api/2.0/mlflow/logged-models/{quote(info['model_id'], safe='')}/artifacts/files"
        for path, size in self._tree(listing, {}, "artifact_directory_path", f"model {info['model_id']}"):
            yield self._file(str(info.get("artifact_uri") or ""), path, size, aside, {"artifact_file_path": path})

    def close(self) -> None:
        self._http.close()

    def _tree(
        self, listing: str, query: Mapping[str, str], folder_name: str, what: str
    ) -> Iterator[tuple[str, int | None]]:
        folders, seen = [""], {""}
        while folders:
            folder = folders.pop()
            token: str | None = None
            while True:
                asked = {**query, folder_name: folder or None, "page_token": token}
                try:
                    page = self._get(listing, asked)
                except NotFound:
                    self.left_out.append(f"{what}: its files, which the server does not list")
                    return
                for it in page.get("files") or ():
                    path = str(it["path"])
                    if not it.get("is_dir"):
                        yield path, int(it["file_size"]) if it.get("file_size") is not None else None
                    elif path not in seen and len(seen) < MOST_FOLDERS:
                        seen.add(path)
                        folders.append(path)
                token = page.get("next_page_token") or None
                if token is None:
                    break

    def _file(self, uri: str, path: str, size: int | None, aside: str, query: Mapping[str, str]) -> StoredFile:
        parts = urlsplit(uri)
        if parts.scheme == "mlflow-artifacts":
            url = f"{PROXY}{quote(parts.path.rstrip('/'), safe='/')}/{quote(path, safe='/')}"
            return StoredFile(path, lambda: self._download(url, {}, size), size)
        # Files that lie elsewhere are fetched by the server, if it can.
        return StoredFile(path, lambda: self._download(aside, query, size), size)

    def _download(self, url: str, query: Mapping[str, str], size: int | None) -> BinaryIO:
        """The content, in memory or in a file of its own. A connection that breaks begins anew."""
        attempt = 0
        while True:
            attempt += 1
            target = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  # the reader closes it
            try:
                self._fill(target, url, query, size)
            except httpx2.TransportError as error:
                target.close()
                if attempt == ATTEMPTS:
                    raise PlatformUnreachable(f"The download of {url} broke off: {error}.") from error
            except BaseException:
                target.close()
                raise
            else:
                target.seek(0)
                return target

    def _fill(self, target: BinaryIO, url: str, query: Mapping[str, str], size: int | None) -> None:
        """Write a content down, and no more of it than was listed: packed, a little could fill the disk."""
        response = self._http.send("GET", url, params=query, is_streamed=True)
        most = MOST_UNLISTED if size is None else size
        try:
            for chunk in response.iter_bytes():
                if target.tell() + len(chunk) > most:
                    raise Unreadable(f"{url} holds more than the {most} bytes that it may.")
                target.write(chunk)
        except httpx2.DecodingError as error:
            raise Unreadable(f"{url} cannot be unpacked: {error}.") from error
        finally:
            response.close()
        if size is not None and target.tell() != size:
            raise Unreadable(f"{url} holds {target.tell()} bytes, and {size} were listed.")

    def _searched(self, path: str, body: dict[str, Any], name: str) -> Iterator[Fields]:
        while True:
            page = self._json("POST", path, json=body)
            yield from page.get(name) or ()
            if not page.get("next_page_token"):
                return
            body = {**body, "page_token": page["next_page_token"]}

    def _get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        return self._json("GET", path, params=query)

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = self._http.send(method, path, **options)
        try:
            found = from_json(response.content or b"{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UnexpectedAnswer(f"{path} answered with something that no MLflow server says there.")
        return found


class _Http:
    """Requests to a server that is not ours, repeated as those to ours are."""

    def __init__(self, url: str, settings: ClientSettings, authorization: str | None) -> None:
        parts = urlsplit(url)
        # The address is said in errors and logs, and who may in is not.
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
        named = (
            httpx2.BasicAuth(unquote(parts.username or ""), unquote(parts.password or "")) if "@" in parts.netloc else None
        )
        self._policy = RetryPolicy(attempts=settings.retries)
        seconds = settings.timeout_seconds
        self._client = httpx2.Client(
            # No key of ours goes there; and calls to this machine go through no proxy.
            headers={"Authorization": authorization} if authorization else {},
            auth=named,
            timeout=httpx2.Timeout(seconds, connect=min(5.0, seconds), read=max(seconds, 60.0)),
            limits=httpx2.Limits(max_connections=8),
            trust_env=not is_loopback(url),
        )

    def close(self) -> None:
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        is_streamed: bool = False,
    ) -> httpx2.Response:
        """A success, its body read unless it is streamed. Nothing here changes anything, so that all may be repeated."""
        query = {name: value for name, value in (params or {}).items() if value is not None}
        attempt = 0
        while True:
            attempt += 1
            try:
                # Files are asked for as they are: what they may be unpacked to is not to be known before.
                headers = {"Accept-Encoding": "identity"} if is_streamed else {}
                request = self._client.build_request(method, self._url + path, params=query, json=json, headers=headers)
                response = self._client.send(request, stream=True)
                if not is_streamed or not response.is_success:
                    response.read()
            except httpx2.RequestError as error:
                wait = self._policy.after_failure(attempt, error, is_repeatable=True, jitter=random.random)
                if wait is None:
                    raise PlatformUnreachable(f"Nothing answers at {self._url}: {error}.") from error
            else:
                if response.is_success:
                    return response
                status, said = response.status_code, response.headers
                wait = self._policy.after_answer(attempt, status, headers=said, is_repeatable=True, jitter=random.random)
                if wait is None:
                    raise _problem(response)
            time.sleep(wait)


def _problem(response: httpx2.Response) -> Exception:
    try:
        body = from_json(response.content)
    except ValueError:
        body = None
    said = body.get("message") if isinstance(body, dict) else None
    problem = {"type": "about:blank", "title": "MLflow", "status": response.status_code, "code": "mlflow"}
    shown = {**problem, "detail": str(said or f"{response.url.path} answered with {response.status_code}.")[:1000]}
    return api_error(response.status_code, shown, url=str(response.url.copy_with(query=None)), request_id=None)
