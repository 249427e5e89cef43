"""BoxLite over REST, on the wire: the real REST client of BoxLite against a small server on loopback.

No BoxLite server can run here. The server below knows the paths and shapes that BoxLite 0.10.8 uses, answers a request
that it does not expect with 400, and keeps everything it was sent. What is tested is what cedarbox sends and how it
takes the answers, not a server.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boxlite  # type: ignore[import-untyped]  # a native module
import pytest
import uvicorn
from agents.sandbox.errors import ExecTransportError
from agents.sandbox.manifest import Manifest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from cedarbox import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, Mount
from cedarbox.boxlite.remote import is_remote
from cedarbox.errors import CedarboxError, ConfigurationError, HostError

IMAGE = "mirror.corp.example/python@sha256:" + "0" * 64
NOW = "2026-01-01T00:00:00Z"
CREATE = {
    "name": str,
    "image": str,
    "cpus": int,
    "memory_mib": int,
    "network": dict,
    "entrypoint": list,
    "cmd": list,
    "user": str,
    "detach": bool,
    "auto_delete": int,
}
EXEC = {"command": str, "args": list, "env": dict, "working_dir": str, "tty": bool}


def conforms(body: dict[str, Any], shape: dict[str, type], required: tuple[str, ...]) -> bool:
    known = all(name in shape and isinstance(value, shape[name]) for name, value in body.items())
    return known and all(name in body for name in required)


@dataclass
class Server:
    """Boxes that run nothing; a command is answered as the script wrapper of cedarbox would answer it."""

    key: str = "key"
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    boxes: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    url: str = ""

    def app(self) -> Starlette:
        at = "/v1/acme/boxes"
        return Starlette(
            routes=[
                Route(at, self.create, methods=["POST"]),
                Route(at, self.list, methods=["GET"]),
                Route(at + "/{id}", self.one, methods=["GET", "DELETE"]),
                Route(at + "/{id}/{verb:str}", self.act, methods=["POST"]),
                WebSocketRoute(at + "/{id}/executions/{run}/attach", self.attach),
            ]
        )

    async def taken(self, request: Request) -> tuple[Any, Response | None]:
        raw = await request.body()
        body = json.loads(raw) if raw else None
        self.requests.append((request.method, request.url.path, body))
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return body, refusal(401, "unauthorized")
        kind = f"{request.method} {request.path_params.get('verb', 'box')}"
        if (status := self.status.get(kind)) is not None:
            return body, refusal(status, "injected")
        return body, None

    async def create(self, request: Request) -> Response:
        body, refused = await self.taken(request)
        if refused is not None:
            return refused
        if not conforms(body, CREATE, ("image", "network")):
            return refusal(400, "not the shape of a creation")
        number = f"01HJK4TNRPQSXYZ8WM6NCVT9R{len(self.boxes)}"
        sizes = {name: body[name] for name in ("name", "image", "cpus", "memory_mib")}
        self.boxes[number] = {"box_id": number, "status": "configured", "created_at": NOW, "updated_at": NOW, **sizes}
        return JSONResponse(self.boxes[number] | {"pid": None, "labels": {}}, 201)

    async def list(self, request: Request) -> Response:
        _, refused = await self.taken(request)
        return refused or JSONResponse({"boxes": [box | {"pid": None, "labels": {}} for box in self.boxes.values()]})

    async def one(self, request: Request) -> Response:
        _, refused = await self.taken(request)
        box = self.boxes.get(request.path_params["id"])
        if refused is not None or box is None:
            return refused or refusal(404, "no such box")
        if request.method == "DELETE":
            del self.boxes[box["box_id"]]
            return Response(status_code=204)
        return JSONResponse(box | {"pid": None, "labels": {}})

    async def act(self, request: Request) -> Response:
        body, refused = await self.taken(request)
        box = self.boxes.get(request.path_params["id"])
        if refused is not None or box is None:
            return refused or refusal(404, "no such box")
        verb = request.path_params["verb"]
        if verb in {"start", "stop"}:
            box["status"] = "running" if verb == "start" else "stopped"
            return JSONResponse(box | {"pid": None, "labels": {}})
        if verb != "exec" or not conforms(body, EXEC, ("command",)):
            return refusal(400, "not the shape of a command")
        number = f"run{len(self.commands)}"
        self.commands[number] = body
        return JSONResponse({"execution_id": number}, 201)

    async def attach(self, socket: WebSocket) -> None:
        await socket.accept()
        arguments = self.commands[socket.path_params["run"]].get("args", [])
        out, err, code = b"", b"", 0
        if "sh" in arguments and len(arguments) > 6:
            left, right = arguments[3:5]
            command = arguments[7:]
            said = "hello\n" if "greet" in command else ""
            code = 7 if "greet" in command else 0
            marker = f"{left}={right}"
            out = base64.b64encode(f"{said}{marker}{code}\n".encode()) + b"\n"
            err = b"#" + base64.b64encode(f"{marker}\n".encode()) + b"\n"
        await socket.send_bytes(b"\x01" + out)
        await socket.send_bytes(b"\x02" + err)
        try:
            while True:
                message = await asyncio.wait_for(socket.receive(), 0.2)
                if message["type"] == "websocket.disconnect":
                    return
        except (TimeoutError, WebSocketDisconnect):
            pass
        await socket.send_text(json.dumps({"type": "exit", "exit_code": 0}))
        await socket.close()


def refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": {"code": status, "type": "error", "message": message}}, status)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    config = uvicorn.Config(server.app(), host="127.0.0.1", port=0, log_level="critical", ws="websockets-sansio")
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:  # noqa: ASYNC110 - uvicorn tells in no other way
        await asyncio.sleep(0.02)
    server.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        running.should_exit = True
        await task


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server on loopback."""
    async with serving(Server()) as made:
        yield made


def rest(url: str, key: str = "key") -> Any:
    return boxlite.Boxlite.rest(boxlite.BoxliteRestOptions(url, boxlite.ApiKeyCredential(key), "acme"))


def options(**values: Any) -> BoxLiteSandboxClientOptions:
    return BoxLiteSandboxClientOptions(**{"image": IMAGE, "boot_timeout_s": 20.0, **values})


async def test_a_local_and_a_remote_runtime_are_told_apart_without_a_request(server: Server, tmp_path: Path) -> None:
    assert is_remote(rest(server.url))
    assert server.requests == []
    local = boxlite.Boxlite(boxlite.Options(home_dir=str(tmp_path)))
    assert not is_remote(local)
    assert await local.list_info() == []
    with pytest.raises(ConfigurationError, match=r"is not a boxlite\.Boxlite"):
        BoxLiteSandboxClient(runtime=object())


async def test_what_is_sent_and_what_comes_back(server: Server) -> None:
    client = BoxLiteSandboxClient(runtime=rest(server.url))
    session = await client.create(options=options())
    assert server.requests == []
    inner: Any = session._inner
    await inner._ensure_backend_started()
    (_, _, created), *_ = (entry for entry in server.requests if entry[:2] == ("POST", "/v1/acme/boxes"))
    # The promise that matters most is on the wire.
    assert created["network"] == {"mode": "disabled"}
    assert (created["image"], created["user"], created["auto_delete"]) == (IMAGE, "0:0", 0)
    assert re.fullmatch(r"cedarbox-[0-9a-f]{32}-n[0-9a-f]{32}", created["name"])
    result = await session.exec("greet", shell=False)
    assert (result.stdout, result.stderr, result.exit_code) == (b"hello\n", b"", 7)
    sent = server.commands["run0"]
    assert sent["env"].keys() == {"CEDARBOX_EXEC"}
    with pytest.raises(ExecTransportError, match="user of a command is not sent"):
        await session.exec("greet", shell=False, user="agent")
    assert await session.running()
    await session.shutdown()
    await client.delete(session)
    assert server.boxes == {}


async def test_a_sandbox_is_found_again_only_with_the_network_it_was_made_with(server: Server) -> None:
    client = BoxLiteSandboxClient(runtime=rest(server.url))
    session = await client.create(options=options(egress_allowlist=("a.example",)))
    inner: Any = session._inner
    await inner._ensure_backend_started()
    state = client.serialize_session_state(session.state)
    again: Any = await client.resume(client.deserialize_session_state(dict(state)))
    assert again.state.box_id == session.state.box_id  # type: ignore[attr-defined]  # BoxLite's state has one
    other: Any = await client.resume(client.deserialize_session_state({**state, "egress_allowlist": []}))
    assert other.state.box_id == ""


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (lambda path: {"image": None, "rootfs": str(path)}, "rootfs"),
        (lambda path: {"mounts": (Mount(path, "/mnt/x"),)}, "mounts"),
        (lambda _: {"exposed_ports": (80,), "egress_allowlist": ("a.example",)}, "exposed_ports"),
        (lambda _: {"workspace_persistence": "native"}, "workspace_persistence"),
    ],
)
async def test_what_it_cannot_do_is_refused_before_anything_is_sent(
    server: Server, tmp_path: Path, values: Callable[[Path], dict[str, Any]], what: str
) -> None:
    client = BoxLiteSandboxClient(runtime=rest(server.url))
    chosen = options(**values(tmp_path))
    with pytest.raises(ConfigurationError, match=f"^{what}: "):
        await client.create(options=chosen, manifest=Manifest())
    with pytest.raises(ConfigurationError, match=f"^{what}: "):
        client.describe_sandbox(chosen)
    assert server.requests == []


def test_the_guard_is_told_the_truth(tmp_path: Path) -> None:
    client = BoxLiteSandboxClient(runtime=rest("http://127.0.0.1:1"))
    facts = client.describe_sandbox(options())
    assert (facts["isolation"], facts["egress"], facts["snapshots"]) == ("hosted", (), ("tar",))
    assert (facts["digest"], facts["repository"]) == ("sha256:" + "0" * 64, "mirror.corp.example/python")


@pytest.mark.parametrize(("status", "key"), [(401, "wrong"), (404, "key"), (409, "key"), (500, "key"), (503, "key")])
async def test_a_server_that_refuses_is_one_clear_line(server: Server, status: int, key: str) -> None:
    if key == "key":
        server.status["POST start"] = status
    client = BoxLiteSandboxClient(runtime=rest(server.url, key))
    session = await client.create(options=options())
    with pytest.raises(CedarboxError) as caught:
        await session.start()
    assert "\n" not in str(caught.value)
    assert "check the server's address" in str(caught.value)
    assert server.boxes == {}


async def test_no_server_is_one_clear_line() -> None:
    client = BoxLiteSandboxClient(runtime=rest("http://127.0.0.1:1"))
    session = await client.create(options=options())
    with pytest.raises(HostError, match="could not start"):
        await session.start()


async def test_a_command_that_the_server_refuses(server: Server) -> None:
    client = BoxLiteSandboxClient(runtime=rest(server.url))
    session = await client.create(options=options())
    inner: Any = session._inner
    await inner._ensure_backend_started()
    server.status["POST exec"] = 500
    with pytest.raises(ExecTransportError) as caught:
        await session.exec("greet", shell=False)
    assert not caught.value.context.get("retry_safe")
