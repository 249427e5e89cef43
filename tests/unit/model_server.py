"""A model server on the loopback address: answers over HTTP as a script says, and keeps what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai import AsyncOpenAI

__all__ = ["ModelServer", "chat_call", "chat_text", "model_server", "response_call", "response_text"]


class ModelServer:
    """What the server was sent, and what it answers next."""

    def __init__(self, answers: Sequence[dict[str, Any]], *, redirect: str | None = None) -> None:
        self.answers, self.redirect = list(answers), redirect
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Base URL for a client."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The body of each request so far."""
        return [body for _, body in self.requests]

    def client(self, **options: Any) -> AsyncOpenAI:
        """Return a client of this server that does not try twice."""
        return AsyncOpenAI(base_url=self.url, api_key="x", max_retries=0, **options)


@contextmanager
def model_server(*answers: dict[str, Any], redirect: str | None = None) -> Iterator[ModelServer]:
    """Serve for the duration of the block; ``redirect`` answers everything with a 307 to that URL."""
    state = ModelServer(answers, redirect=redirect)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            state.requests.append((self.path, json.loads(self.rfile.read(length) or b"{}")))
            if state.redirect is not None:
                self.send_response(307)
                self.send_header("Location", state.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = json.dumps(state.answers.pop(0) if state.answers else {"error": {"message": "no answer"}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815  # names of the standard library

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chat_text(text: str) -> dict[str, Any]:
    """Return a chat completion that says something."""
    return _chat({"role": "assistant", "content": text}, "stop")


def chat_call(name: str, arguments: dict[str, Any], call_id: str = "call-1") -> dict[str, Any]:
    """Return a chat completion that calls a function."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": call_id, "type": "function", "function": function}
    return _chat({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")


def response_text(text: str, response_id: str = "resp_1") -> dict[str, Any]:
    """Return a response that says something."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
    return _response(item, response_id)


def response_call(name: str, response_id: str = "resp_1") -> dict[str, Any]:
    """Return a response that calls a function without arguments."""
    item = {"id": "fc_1", "type": "function_call", "call_id": "call-1", "name": name, "arguments": "{}"}
    return _response(item, response_id)


def _chat(message: dict[str, Any], finish: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "message": message}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {
        "id": "chat-1",
        "object": "chat.completion",
        "created": 1,
        "model": "local",
        "choices": [choice],
        "usage": usage,
    }


def _response(item: dict[str, Any], response_id: str) -> dict[str, Any]:
    return {
        "id": response_id,
        "object": "response",
        "created_at": 1,
        "model": "local",
        "status": "completed",
        "output": [item],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    }
