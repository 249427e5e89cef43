"""Carries scripts out, each in a process forked from one that has imported the SDK and not cedarbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, Final

__all__ = ["forked"]

_FORKER: Final = """
import json, os, sys, tempfile, traceback
import agents, agents.testing, agents.tracing, agents.realtime, httpx2, opentelemetry.sdk.trace
# What cedarbox imports, and not cedarbox: each attack would take seconds for it.
import boxlite, cedarpy, cryptography.x509, httpx, orjson, pydantic_settings, rfc8785, rich.progress, zstandard
import agents.memory.sqlite_session, agents.sandbox.sandboxes.unix_local, opentelemetry.sdk.metrics.export
import cryptography.hazmat.primitives.asymmetric.ed25519, cryptography.hazmat.primitives.serialization
import opentelemetry.proto.collector.logs.v1.logs_service_pb2
import opentelemetry.proto.collector.metrics.v1.metrics_service_pb2
import opentelemetry.proto.collector.trace.v1.trace_service_pb2
assert "cedarbox" not in sys.modules
# The children share what they compile.
sys.pycache_prefix, sys.dont_write_bytecode = sys.argv[1], False
for line in sys.stdin:
    order = json.loads(line)
    with tempfile.TemporaryFile("w+") as out:
        child = os.fork()
        if not child:
            status = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
                os.environ.update(order["environment"])
                exec(compile(order["script"], "attack", "exec"), {"__name__": "__main__"})
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        print(json.dumps({"status": status, "output": out.read()}), flush=True)
"""


@contextmanager
def forked() -> Iterator[Callable[[str, Mapping[str, str]], dict[str, Any]]]:
    """Give what carries out a script, with additions to its environment; gives the JSON that it prints last."""
    with (
        TemporaryDirectory() as compiled,
        subprocess.Popen(
            [sys.executable, "-c", _FORKER, compiled],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):

        def carry_out(script: str, environment: Mapping[str, str]) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"script": script, "environment": dict(environment)}) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert answer["status"] == 0, answer["output"]
            found: dict[str, Any] = json.loads(answer["output"].splitlines()[-1])
            return found

        yield carry_out
