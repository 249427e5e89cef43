"""Programs, each in a process of its own that is forked from one that has imported what they need.

An interpreter that starts and imports the SDK takes two seconds of a processor, and most of a test of a command.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

__all__ = ["command", "forked", "fresh"]

# The child leaves the loop, and ends as an interpreter does, but for the second that it takes to clear all that was
# imported: with the exit code of the program, after its threads, with what it registered for its end, all written.
_FORKER: Final = """
import atexit, gc, json, os, sys, tempfile, threading
exec(sys.argv[1])
sys.argv, program = ["-c"], None
gc.collect()
gc.freeze()
for line in sys.stdin:
    order = json.loads(line)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), out.fileno(), err.fileno())):
                os.dup2(file, number)
            os.chdir(order["directory"])
            os.environ.clear()
            os.environ.update(order["environment"])
            program = order["program"]
            break
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), err.seek(0)
        print(json.dumps({"status": status, "out": out.read(), "err": err.read()}), flush=True)
if program is not None:
    status = 0
    try:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status & 255)
"""

# What the SDK imports, and neither it nor cedarbox.
_BELOW_THE_SDK: Final = """
import mcp, mcp.client.streamable_http, mcp.server, griffe, httpx2, openai, openai.types.chat, openai.types.realtime
import openai.types.responses, opentelemetry.sdk.trace, cryptography.x509, pydantic, typer
assert not {"agents", "cedarbox"} & sys.modules.keys()
"""
# What cedarbox imports, and not cedarbox.
_THE_SDK: Final = """
import agents, agents.testing, agents.tracing, agents.realtime, httpx2, opentelemetry.sdk.trace
import boxlite, cedarpy, cryptography.x509, httpx, orjson, pydantic_settings, rfc8785, rich.progress, zstandard
import agents.memory.sqlite_session, agents.sandbox.sandboxes.unix_local, opentelemetry.sdk.metrics.export
import cryptography.hazmat.primitives.asymmetric.ed25519, cryptography.hazmat.primitives.serialization
import opentelemetry.proto.collector.logs.v1.logs_service_pb2
import opentelemetry.proto.collector.metrics.v1.metrics_service_pb2
import opentelemetry.proto.collector.trace.v1.trace_service_pb2
assert "cedarbox" not in sys.modules
# The children share what they compile of it.
sys.pycache_prefix, sys.dont_write_bytecode = tempfile.mkdtemp(), False
import shutil
atexit.register(lambda made=(os.getpid(), sys.pycache_prefix): made[0] == os.getpid() and shutil.rmtree(made[1]))
"""
_COMMANDS: Final = """
import importlib, agents, cedarbox.cli, cedarbox.conformance.backends
for name in cedarbox.cli.COMMANDS: importlib.import_module(f"cedarbox.cli.{name}")
import cedarbox.cli.demo, cedarbox.hardened
"""


class _Forker:
    def __init__(self, imports: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORKER, imports],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, program: str, environment: Mapping[str, str], directory: Path | None
    ) -> subprocess.CompletedProcess[str]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        around = {**os.environ, **environment}
        order = {"program": program, "environment": around, "directory": str(directory or Path.cwd())}
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        told = json.loads(stdout.readline())
        return subprocess.CompletedProcess(program, told["status"], told["out"], told["err"])

    def close(self) -> None:
        self._process.communicate()


@cache
def _forker(imports: str) -> _Forker:
    """One for all tests of this process, whose end is its end."""
    made = _Forker(imports)
    atexit.register(made.close)
    return made


def fresh(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process that has imported neither the SDK nor cedarbox."""
    return _forker(_BELOW_THE_SDK).run(program, {}, None)


def command(
    *arguments: object, module: str = "cedarbox", directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own, as ``python -m`` does."""
    argv = [module, *map(str, arguments)]
    program = f"import runpy, sys; sys.argv = {argv!r}; runpy.run_module({module!r}, run_name='__main__')"
    return _forker(_COMMANDS).run(program, {}, directory)


@contextmanager
def forked() -> Iterator[Callable[[str, Mapping[str, str]], dict[str, Any]]]:
    """Give what carries out a script in a process that has imported the SDK and not cedarbox.

    It takes additions to the environment, and gives the JSON that the script prints last.
    """

    def carry_out(script: str, environment: Mapping[str, str]) -> dict[str, Any]:
        done = _forker(_THE_SDK).run(script, environment, None)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    yield carry_out
