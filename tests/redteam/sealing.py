"""A process for each attack on the seal, and a server where the vendor's would be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from tests.unit.forked import forked

__all__ = ["MARKS", "Outcome", "Vendor", "playing", "vendor"]

MARKS: Final = ("secret question", "secret answer")
"""What a run says and is answered; none of it may arrive anywhere."""

_BEFORE: Final = """
import asyncio, json, os, sys, threading
VENDOR = os.environ["VENDOR"]
watched = []
def watch(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto", "socket.sendmsg"):
        target = args[1] if event.startswith("socket.s") or event == "socket.connect" else args[0]
        if not isinstance(target, (str, bytes)) or "socket.get" in event:
            watched.append(event + " " + str(target))
sys.addaudithook(watch)
from agents.tracing import processors
from agents.tracing.processors import BackendSpanExporter
# The fixed address of the vendor, put where this test can listen.
old = BackendSpanExporter.__init__.__defaults__
BackendSpanExporter.__init__.__defaults__ = tuple(
    VENDOR if isinstance(value, str) and value.startswith("https://api.openai.com") else value for value in old
)
assert BackendSpanExporter.__init__.__defaults__ != old
refused = []
def attempt(action):
    try:
        return action()
    except Exception as error:
        if type(error).__name__ != "SealError":
            raise
        refused.append(str(error))
def seal():
    import cedarbox
    from cedarbox.telemetry import tracing
    tracing.seal()
def agent(**options):
    from agents import Agent
    from agents.testing import ScriptedModel, assistant_message
    steps = [[assistant_message("secret answer")] for _ in range(8)]
    return Agent(name="a", model=ScriptedModel(steps, emit_traces=True), **options)
def run(**options):
    from agents import RunConfig, Runner, custom_span, flush_traces, trace
    config = RunConfig(tracing={"api_key": "sk-run-0000000000000"}, trace_include_sensitive_data=True, **options)
    with trace("attack", metadata={"note": "secret question"}), custom_span("told", {"note": "secret answer"}):
        asyncio.run(Runner.run(agent(), "secret question", run_config=config))
    flush_traces()
"""
_AFTER: Final = """
from agents import flush_traces
from agents.tracing import setup
try:
    flush_traces()
except Exception as error:
    if type(error).__name__ != "SealError":
        raise
provider = setup.GLOBAL_TRACE_PROVIDER
if provider is not None:
    provider.shutdown()
sealed = False
if "cedarbox.telemetry.tracing" in sys.modules:
    from cedarbox.telemetry.tracing import is_sealed
    sealed = is_sealed()
print(json.dumps({"watched": watched, "refused": refused, "sealed": sealed}))
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack came to.

    Attributes:
        watched: Look-ups and connections that the interpreter was asked for.
        refused: What the seal said.
        sealed: Whether the seal is whole at the end.
    """

    watched: list[str]
    refused: list[str]
    sealed: bool


class Vendor:
    """The requests that arrived where the vendor would be."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.connections = 0
        self.url = ""


@contextmanager
def vendor() -> Iterator[Vendor]:
    """Serve on the loopback address for the duration of the block, and take everything."""
    state = Vendor()

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            state.connections += 1
            super().setup()

        def _take(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            state.received.append(self.rfile.read(length))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PUT = do_CONNECT = _take  # noqa: N815  # names of the standard library

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces/ingest"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def playing() -> Iterator[Callable[..., Outcome]]:
    """Give what carries an attack out in a process of its own, forked from one that has imported the SDK only."""
    with forked() as carry_out:

        def play(attack: str, to: Vendor, **environment: str) -> Outcome:
            base = to.url.partition("/v1/")[0]
            given = {
                "VENDOR": to.url,
                "OPENAI_API_KEY": "sk-attack-000000000000",
                "OPENAI_BASE_URL": f"{base}/v1",
                "OPENAI_AGENTS_TRACE_INCLUDE_SENSITIVE_DATA": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": base,
                "OTEL_TRACES_EXPORTER": "otlp",
                "NO_PROXY": "",
                **environment,
            }
            return Outcome(**carry_out(_BEFORE + attack + _AFTER, given))

        yield play
