"""A small server on loopback that speaks BoxLite's REST protocol, to see what cedarbox sends and how it takes answers.

No server of BoxLite can run here: none is in its packages for Python and Node. The models below are the part of its
published description that cedarbox uses, written down by hand from ``openapi/box.openapi.yaml`` of
``boxlite-ai/boxlite`` at commit 01c4e7d1d7d0 (version 0.1.0 of the description) and compared with what the REST client
of BoxLite 0.10.8 sends. A request that does not fit is answered with an error and kept in :attr:`Server.violations`.

Boxes are not microVMs. A command really runs, as a process of this host, with some paths of the guest below a
directory of the test.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import boxlite  # type: ignore[import-untyped]  # a native module
import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PREFIX = "acme"
KEY = "a-key"
_NOW = "2026-01-01T00:00:00Z"
# What the tests write that is not below their own directory: a helper of the SDK, a scratch directory, and the
# network cards of the guest, which are read.
_GUEST_PATHS = re.compile(r"(?<![\w$}])(/tmp/openai-agents|/sys/class/net|/\.cedarbox)(?=[/ \n]|$)")


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Network(_Shape):
    """``NetworkSpec``: nested, or the deprecated flat form, never both."""

    outbound: dict[str, Any] | None = None
    inbound: dict[str, Any] | None = None
    mode: Literal["enabled", "disabled"] | None = None
    allow_net: list[str] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        nested, flat = self.outbound or self.inbound, self.mode or self.allow_net is not None
        if bool(nested) == bool(flat):
            raise ValueError("one form of the network")
        return self


class Creation(_Shape):
    """``CreateBoxRequest``. It has neither ports nor security: those are the server's."""

    advanced: dict[str, Any] | None = None
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$", max_length=128)] | None = None
    image: str | None = None
    rootfs_path: str | None = None
    cpus: Annotated[int, Field(ge=1, le=32)] | None = None
    memory_mib: Annotated[int, Field(ge=128)] | None = None
    disk_size_gb: Annotated[int, Field(ge=1)] | None = None
    working_dir: str | None = None
    env: dict[str, str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    user: str | None = None
    volumes: list[dict[str, Any]] | None = None
    network: Network | None = None
    secrets: list[dict[str, Any]] | None = None
    detach: bool = False
    tty: bool = False
    auto_stop: Annotated[int, Field(ge=0)] | None = None
    auto_delete: Annotated[int, Field(ge=0)] | None = None
    auto_resume: bool | None = None


class Command(_Shape):
    """``ExecRequest``. It has no user."""

    command: str
    args: list[str] = []
    env: dict[str, str] = {}
    timeout_seconds: Annotated[float, Field(ge=0.1)] | None = None
    working_dir: str | None = None
    tty: bool = False


class Stop(_Shape):
    """``StopBoxRequest``."""

    timeout_seconds: float | None = None


@dataclass
class Fault:
    """An answer instead of the right one.

    Attributes:
        status: The HTTP status; 0 for no answer at all, as long as the server lives.
        code: ``error.code`` of the envelope; empty for a body that is none, as a proxy sends it.
    """

    status: int
    code: str = ""


@dataclass
class Server:
    """The server.

    Attributes:
        root: Where the paths of the guest are.
        requests: Everything it was sent: method, path below the prefix, body.
        violations: What did not fit the description.
        boxes: The boxes it has, by id, as it tells them.
        faults: Answers by method and last part of the path, such as ``POST exec``.
        deaf: Commands start, but nobody can attach to them.
        url: Its address.
    """

    root: Path
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    boxes: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    deaf: bool = False
    url: str = ""
    _commands: dict[str, Command] = field(default_factory=dict)
    _closed: asyncio.Event = field(default_factory=asyncio.Event)

    def card(self, name: str, *, up: bool) -> None:
        """Give the guest a network card."""
        place = self.root / "sys/class/net" / name
        place.mkdir(parents=True)
        (place / "operstate").write_text("up\n" if up else "down\n")

    def runtime(self, *, key: str = KEY) -> Any:
        """Return BoxLite's own REST client for it."""
        return rest(self.url, key=key)

    def sent(self, method: str, last: str) -> list[Any]:
        """Return the bodies of the requests of a method whose path ends like this."""
        return [body for verb, path, body in self.requests if verb == method and path.rpartition("/")[2] == last]

    def app(self) -> Starlette:
        """Return the application."""
        boxes = f"/v1/{PREFIX}/boxes"
        runs = boxes + "/{box}/executions/{run}"
        return Starlette(
            routes=[
                Route(boxes, self._create, methods=["POST"]),
                Route(boxes, self._list, methods=["GET"]),
                Route(boxes + "/{box}", self._one, methods=["GET", "DELETE"]),
                Route(boxes + "/{box}/{verb:str}", self._act, methods=["POST"]),
                Route(runs, self._run, methods=["GET"]),
                WebSocketRoute(runs + "/attach", self._attach),
                Route("/{rest:path}", self._unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
            ]
        )

    async def _taken(self, request: Request, shape: type[_Shape] | None = None) -> tuple[Any, Response | None]:
        raw = await request.body()
        body = json.loads(raw) if raw else None
        path = request.url.path.removeprefix(f"/v1/{PREFIX}")
        self.requests.append((request.method, path, body))
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return None, refused(401, "unauthenticated")
        last = "box" if path.count("/") == 2 else path.rpartition("/")[2]
        if (fault := self.faults.get(f"{request.method} {last}")) is not None:
            if not fault.status:
                await self._closed.wait()
            return None, refused(fault.status or 503, fault.code)
        try:
            return (body if shape is None else shape.model_validate(body or {})), None
        except ValidationError as error:
            self.violations.append(f"{request.method} {path}: {error}")
            return None, refused(400, "invalid_argument")

    async def _create(self, request: Request) -> Response:
        asked, answer = await self._taken(request, Creation)
        if answer is not None:
            return answer
        number = secrets.token_hex(13)
        self.boxes[number] = {
            "box_id": number,
            "name": asked.name,
            "status": "configured",
            "created_at": _NOW,
            "updated_at": _NOW,
            "pid": None,
            "image": asked.image,
            "cpus": asked.cpus or 2,
            "memory_mib": asked.memory_mib or 512,
            "labels": {},
        }
        return JSONResponse(self.boxes[number], 201, headers={"location": f"{request.url.path}/{number}"})

    async def _list(self, request: Request) -> Response:
        _, answer = await self._taken(request)
        first = list(self.boxes.values())[:100]  # pageSize is 100 unless it is given
        more = "2" if len(self.boxes) > 100 else None
        return answer or JSONResponse({"boxes": first, "next_page_token": more})

    def _box(self, request: Request) -> dict[str, Any] | None:
        asked = request.path_params["box"]
        return next((box for box in self.boxes.values() if asked in (box["box_id"], box["name"])), None)

    async def _one(self, request: Request) -> Response:
        _, answer = await self._taken(request)
        box = self._box(request)
        if answer is not None or box is None:
            return answer or refused(404, "not_found")
        if request.method == "GET":
            return JSONResponse(box)
        if box["status"] == "running" and request.query_params.get("force") != "true":
            return refused(409, "invalid_state")
        del self.boxes[box["box_id"]]
        return Response(status_code=204)

    async def _act(self, request: Request) -> Response:
        verb = request.path_params["verb"]
        shape = {"start": None, "stop": Stop, "exec": Command}.get(verb, Stop)
        asked, answer = await self._taken(request, shape)
        box = self._box(request)
        if answer is not None or box is None:
            return answer or refused(404, "not_found")
        if verb in ("start", "stop"):
            box["status"] = "running" if verb == "start" else "stopped"
            return JSONResponse(box)
        if verb != "exec":
            self.violations.append(f"POST {verb}")
            return refused(404, "not_found")
        number = f"exec-{secrets.token_hex(6)}"
        self._commands[number] = asked
        return JSONResponse({"execution_id": number}, 201)

    async def _run(self, request: Request) -> Response:
        _, answer = await self._taken(request)
        number = request.path_params["run"]
        return answer or JSONResponse({"execution_id": number, "status": "completed", "exit_code": 0})

    async def _unknown(self, request: Request) -> Response:
        self.violations.append(f"{request.method} {request.url.path}")
        return refused(404, "not_found")

    def _here(self, text: str) -> str:
        return _GUEST_PATHS.sub(lambda match: f"{self.root}{match.group()}", text)

    async def _attach(self, socket: WebSocket) -> None:
        asked = self._commands.get(socket.path_params["run"])
        if asked is None or self.deaf or socket.headers.get("authorization") != f"Bearer {KEY}":
            await socket.close()
            return
        await socket.accept()
        process = await asyncio.create_subprocess_exec(
            asked.command,
            *map(self._here, asked.args),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **asked.env},
            cwd=asked.working_dir,
            start_new_session=True,
        )
        feeding = asyncio.create_task(_fed(socket, process))
        try:
            await asyncio.gather(_pumped(process.stdout, 1, socket), _pumped(process.stderr, 2, socket))
            await socket.send_text(json.dumps({"type": "exit", "exit_code": await process.wait()}))
            await socket.close()
        except WebSocketDisconnect:
            await process.wait()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


async def _fed(socket: WebSocket, process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        if (data := message.get("bytes")) is not None:
            process.stdin.write(data)
            await process.stdin.drain()
        elif json.loads(message["text"])["type"] == "stdin_eof":
            process.stdin.close()


async def _pumped(stream: asyncio.StreamReader | None, channel: int, socket: WebSocket) -> None:
    assert stream is not None
    while data := await stream.read(16 * 1024):
        await socket.send_bytes(bytes([channel]) + data)


def refused(status: int, code: str) -> Response:
    """Return an error as the server gives it, or with no code one that a proxy before it would give."""
    if not code:
        return Response("<html>\nsomething\nis wrong</html>", status, media_type="text/html")
    return JSONResponse({"error": {"message": f"said\n{code}", "type": "Error", "code": code}}, status)


def rest(url: str, *, key: str = KEY) -> Any:
    """Return BoxLite's own REST client."""
    return boxlite.Boxlite.rest(boxlite.BoxliteRestOptions(url, boxlite.ApiKeyCredential(key), PREFIX))


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[Server]:
    """Run a server on loopback. When it ends, nothing may have been sent to it that does not fit the description."""
    server = Server(root)
    server.card("lo", up=True)
    server.card("dummy0", up=False)
    config = uvicorn.Config(
        server.app(),
        host="127.0.0.1",
        port=0,
        log_level="critical",
        ws="websockets-sansio",
        timeout_graceful_shutdown=1,
    )
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:  # noqa: ASYNC110 - uvicorn tells in no other way
        await asyncio.sleep(0.02)
    server.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        server._closed.set()
        running.should_exit = True
        await task
    assert server.violations == []
