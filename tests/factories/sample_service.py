"""A small service with a route for each way in which a request can go, and apps and clients made of it."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg
import httpx2
from fastapi import Query, Request, Response
from sqlalchemy import text
from starlette.responses import StreamingResponse

from mlops_platform.contracts.common import Contract, Description, JsonObject, Name, Page
from mlops_platform.core.errors import NotFound
from mlops_platform.core.http.app import ServiceApp
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, requires
from mlops_platform.core.http.service import HotRequest, HotResponse, HotRoute, Service
from mlops_platform.core.identity import Permission
from mlops_platform.core.work.runtime import Runtime

READ = Permission("toys:read")
WRITE = Permission("toys:write")

SCHEMA = (
    "CREATE SCHEMA IF NOT EXISTS toys",
    "CREATE TABLE IF NOT EXISTS toys.toys (name text, project_id uuid, CONSTRAINT toys_once UNIQUE (project_id, name)"
    " DEFERRABLE INITIALLY DEFERRED)",
    "GRANT USAGE ON SCHEMA toys TO mlops_app",
    "GRANT ALL ON toys.toys TO mlops_app",
)
_INSERT = text("INSERT INTO toys.toys (name, project_id) VALUES (:name, :project)")

router = platform_router(tags=["toys"])


class Toy(Contract):
    """What the routes take."""

    name: Name
    note: Description = ""
    extra: JsonObject = {}
    password: str | None = None


class ToyNotFound(NotFound):
    code = "toy_not_found"


@router.post("/api/toys", status_code=201, dependencies=[requires(WRITE)])
async def make_toy(body: Toy, work: Work, response: Response) -> Toy:
    await work.session.execute(_INSERT, {"name": body.name, "project": work.principal.project})
    await work.audit("toy.made", f"toy:{body.name}", after={"name": body.name})
    await work.emit("toy.made", f"toy:{body.name}", {"name": body.name})
    response.headers["Location"] = f"/api/toys/{body.name}"
    return body


@router.post("/api/toys/slow", status_code=201, dependencies=[requires(WRITE)])
async def make_toy_slowly(body: Toy, work: Work, request: Request) -> Toy:
    await work.session.execute(_INSERT, {"name": body.name, "project": work.principal.project})
    await work.audit("toy.made", f"toy:{body.name}")
    request.app.state.reached.set()
    await request.app.state.gate.wait()
    return body


@router.post("/api/toys/failing", status_code=201, dependencies=[requires(WRITE)])
async def fail_after_writing(body: Toy, work: Work) -> Toy:
    await work.session.execute(_INSERT, {"name": body.name, "project": work.principal.project})
    await work.audit("toy.made", f"toy:{body.name}")
    await work.emit("toy.made", f"toy:{body.name}", {})
    raise ToyNotFound("Not after all.")


@router.get("/api/toys", dependencies=[requires(READ)])
async def list_toys(page: PageOf, numbers: Annotated[int, Query(ge=0)] = 10) -> Page[int]:
    start = page.after[0] + 1 if page.after else 0
    rows = list(range(start, numbers))[: page.size + 1]
    return page.answer(rows, lambda row: row, lambda row: (row,))


@router.get("/api/toys-by-name", dependencies=[requires(READ)])
async def list_names(page: PageOf) -> Page[str]:
    return page.answer(["a", "b", "c"][: page.size + 1], str, lambda row: (row,))


@router.get("/api/toys/crash", dependencies=[requires(READ)])
async def crash(secret: str = "") -> None:
    raise RuntimeError(f"an unforeseen thing with {secret}")


@router.get("/api/toys/sleep", dependencies=[requires(READ)])
async def sleep(request: Request) -> None:
    request.app.state.reached.set()
    await request.app.state.gate.wait()


@router.get("/api/toys/count/{name}", dependencies=[requires(READ, resource="name")])
async def count_toys(name: str, session: Reading, caller: Caller) -> int:
    statement = text("SELECT count(*) FROM toys.toys WHERE name = :name AND project_id = :project")
    return int(await session.scalar(statement, {"name": name, "project": caller.project}))


@router.get("/api/toys/writes-by-reading", dependencies=[requires(READ)])
async def write_by_reading(session: Reading, caller: Caller) -> None:
    await session.scalar(
        text("INSERT INTO toys.toys (name, project_id) VALUES ('sly', :p) RETURNING name"), {"p": caller.project}
    )


@router.post("/api/toys/upload", dependencies=[requires(WRITE)])
async def upload(request: Request) -> int:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return size


@router.get("/api/toys/stream", dependencies=[requires(READ)], response_class=StreamingResponse)
async def stream() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("in the middle")

    return StreamingResponse(chunks(), media_type="text/plain")


async def hot(request: HotRequest) -> HotResponse:
    body = await request.body(limit=100)
    return HotResponse(body or request.path_params.get("name", "none").encode())


SERVICE = Service(
    name="toys",
    title="Toys",
    description="For tests.",
    routers=(router,),
    hot_routes=(HotRoute("POST", "/api/hot", WRITE, hot), HotRoute("GET", "/api/hot/{name}", READ, hot)),
)


def toy_app(runtime: Runtime, **settings: Any) -> ServiceApp:
    """An app of its own, with other settings when given."""
    changed = runtime.settings.model_copy(update=settings)
    app = ServiceApp(SERVICE, dataclasses.replace(runtime, settings=changed))
    app.fastapi.state.gate = asyncio.Event()
    app.fastapi.state.reached = asyncio.Event()
    return app


@asynccontextmanager
async def client_of(app: Any, key: str | None = None, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that sees what the app answers also when it crashes."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        yield client


async def make_schema(owner_dsn: str) -> None:
    """The table of the toys."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        for statement in SCHEMA:
            await connection.execute(statement)
    finally:
        await connection.close()


async def asgi_call(
    app: Any, *, method: str = "GET", path: str = "/", headers: list[tuple[bytes, bytes]], body: list[bytes] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """A request with exactly these headers and chunks, as no client would send it."""
    chunks = body if body is not None else [b""]
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    raw, _, query = path.partition("?")
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": raw, "raw_path": raw.encode(), "scheme": "http",
        "query_string": query.encode(), "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
        "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    await app(scope, receive, send)
    start = next((message for message in sent if message["type"] == "http.response.start"), None)
    if start is None:
        return 0, {}, b""
    content = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, content
