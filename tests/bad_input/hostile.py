"""One operation under attack: its valid request, and what its answers must never be."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tests.bad_input import places
from tests.bad_input.footprint import Footprint, footprint
from tests.bad_input.operations import KEY, Operation, encoded, placed, sample, schema_at
from tests.bad_input.operations import Path as FieldPath
from tests.bad_input.wire import JSON, PROBLEM, Answer, Request, Wire
from tests.conftest import Platform

# What a refusal may be. Never 401 or 403: the caller is an admin.
REFUSALS = {400, 404, 405, 409, 410, 413, 415, 416, 422}
FILE = (b"content-type", b"application/octet-stream")


class Attack:
    """Sends variations of one request and collects what is wrong with the answers."""

    def __init__(self, platform: Platform, operation: Operation, wire: Wire, caller: Any, place: places.Place) -> None:
        self.operation = operation
        self.wire = wire
        self._platform, self._caller, self._place = platform, caller, place
        self._id = (operation.service, operation.method, operation.path)
        self._refused: list[tuple[str, Request]] = []
        self.findings: list[str] = []

    @classmethod
    async def begin(cls, platform: Platform, operation: Operation) -> "Attack":
        caller = await platform.caller(operation.service)
        place = await places.furnished(caller, operation.service)
        return cls(platform, operation, Wire(platform, operation.service, caller.key), caller, place)

    async def check_valid_request(self) -> None:
        """Else everything else would only show that a broken request is refused."""
        answer = await self.wire.send(self.request())
        if not self.is_refused_anyway:
            assert answer.status not in {400, 413, 415, 422}, f"the valid request is refused: {answer}"

    def body(self) -> Any:
        """A valid body, new at each call where names must be new."""
        given = places.BODIES.get(self._id)
        body = sample(self.operation.service, self.operation.body) if given is None else given
        if self._id in places.NAMED and isinstance(body, dict):
            body = {**body, "name": f"{body['name']}-{places.fresh()}"}
        return json.loads(self._here(json.dumps(body)))

    def _here(self, text: str) -> str:
        return text.replace(places.PROJECT, self._caller.project)

    @property
    def is_refused_anyway(self) -> bool:
        """Whether the valid request cannot succeed in tests."""
        return self._id in places.REFUSED

    def with_inner(self, place: FieldPath, extra: dict[str, Any]) -> Any:
        """A valid body with more in one of its objects."""
        schema = schema_at(self.operation.service, self.operation.body, place)
        return self.with_field(place, {**_at(self.body(), place, sample(self.operation.service, schema)), **extra})

    def with_field(self, field: FieldPath, value: Any) -> Any:
        """A valid body but for one field."""
        return placed(self.operation.service, self.operation.body, self.body(), field, value)

    def request(
        self, *, segments: Mapping[str, bytes] | None = None, query: Mapping[str, bytes] | None = None, body: Any = None
    ) -> Request:
        """A valid request but for what is given."""
        path = self.operation.path
        raw = {name: quote(value).encode() for name, value in self._values().items()} | dict(segments or {})
        for name, value in raw.items():
            path = path.replace("{" + name + "}", value.decode("latin-1"))
        pairs = {name: quote(self._here(value)).encode() for name, value in places.QUERIES.get(self._id, {}).items()}
        pairs |= query or {}
        content, header = b"", JSON
        if self.operation.body is not None:
            content = encoded(self.body() if body is None else body)
        elif self.operation.takes_files:
            content, header = b"content", FILE
        text = b"&".join(name.encode() + b"=" + value for name, value in pairs.items())
        return Request(self.operation.method, path.encode("latin-1"), text, [header], content)

    def _values(self) -> dict[str, str]:
        sampled = {one["name"]: str(sample(self.operation.service, one["schema"])) for one in self.operation.named("path")}
        return sampled | {name: value for name, value in self._place.items() if name in sampled}

    async def try_(self, what: str, request: Request, *, field: FieldPath = (), must_refuse: bool = False) -> Answer:
        """Send, and judge the answer."""
        answer = await self.wire.send(request)
        for wrong in self._wrong(answer, field, must_refuse=must_refuse):
            self.findings.append(f"{what}: {wrong}: {answer}")
        if answer.status >= 400:
            self._refused.append((what, request))
        return answer

    async def finish(self) -> None:
        """Send again whatever was refused: after it, the project holds exactly what it held before."""
        before = await self._footprint()
        for what, request in self._refused:
            if (await self.wire.send(request)).status < 400:  # what happened meanwhile made it right
                before = await self._footprint()
                self._refused = [kept for kept in self._refused if kept[0] != what]
        now = await self._footprint()
        changed = sorted(table for table in now if now[table] != before[table])
        if changed:
            self.findings.append(f"a refusal wrote to {changed}: one of {[what for what, _ in self._refused]}")
        assert not self.findings, "\n".join(self.findings)

    async def _footprint(self) -> Footprint:
        return await footprint(self._platform.runtime, self._caller)

    def _wrong(self, answer: Answer, field: FieldPath, *, must_refuse: bool) -> list[str]:
        if answer.status < 400:
            return ["was accepted"] if must_refuse else []
        if answer.status not in REFUSALS:
            return ["the server failed" if answer.status >= 500 else "an odd refusal"]
        return [] if self.operation.method == "HEAD" else _wrong_problem(answer, field)


def _wrong_problem(answer: Answer, field: FieldPath) -> list[str]:
    if answer.content_type != PROBLEM:
        return [f"the refusal is {answer.content_type or 'nothing'}"]
    problem = answer.json()
    if problem["status"] != answer.status or not problem.get("code") or not problem.get("detail"):
        return ["the problem is not whole"]
    if answer.status == 422 and field and not _names(problem.get("errors", []), field):
        return [f"the refusal does not name {'.'.join(map(str, field))}"]
    return []


def _at(body: Any, place: FieldPath, default: Any) -> dict[str, Any]:
    for part in place:
        try:
            body = body[part]
        except (KeyError, IndexError, TypeError):
            body = default
            break
    return body if isinstance(body, dict) else default


def _names(errors: list[dict[str, Any]], field: FieldPath) -> bool:
    """Whether an error is about the field: it, what it lies in, or what lies in it."""
    wanted = {str(part) for part in field if part != KEY and not isinstance(part, int)}
    return any(not wanted or wanted & set(_parts(error["field"])) for error in errors)


def _parts(field: str) -> list[str]:
    return field.replace("[", ".").replace("]", "").split(".")
