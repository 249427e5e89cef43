"""A real time-stamp server for tests: ``openssl ts -reply`` behind HTTP on the loopback."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.unit.shipping import Authority, Pair

__all__ = ["StampServer"]


class StampServer:
    """Stamps what it is asked to, with a certificate of the authority. ``answers`` may change what it answers.

    Attributes:
        queries: The requests that came.
        replies: The answers that were sent.
    """

    def __init__(self, directory: Path, authority: Authority, pair: Pair | None = None) -> None:
        pair = pair or authority.issue_stamper("stamper")
        self._directory = directory
        (directory / "serial").write_text("01\n")
        self._config = directory / "tsa.cnf"
        self._config.write_text(
            f"[tsa]\ndefault_tsa = one\n[one]\nserial = {directory}/serial\ncrypto_device = builtin\n"
            f"signer_cert = {pair.certificate}\nsigner_key = {pair.key}\n"
            "signer_digest = sha256\ndefault_policy = 1.2.3.4\ndigests = sha256\naccuracy = secs:1\n"
            "ess_cert_id_alg = sha256\n"
        )
        self.queries: list[bytes] = []
        self.replies: list[bytes] = []
        self.answers: Callable[[bytes], tuple[int, bytes]] | None = None
        stamper = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = self.rfile.read(int(self.headers["content-length"]))
                status, reply = stamper.answer(query)
                self.send_response(status)
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/tsr"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, query: bytes) -> tuple[int, bytes]:
        self.queries.append(query)
        status, reply = (200, self.stamp(query)) if self.answers is None else self.answers(query)
        self.replies.append(reply)
        return status, reply

    def stamp(self, query: bytes) -> bytes:
        asked, given = self._directory / "query.tsq", self._directory / "reply.tsr"
        asked.write_bytes(query)
        command = [
            "openssl",
            "ts",
            "-reply",
            "-config",
            str(self._config),
            "-queryfile",
            str(asked),
            "-out",
            str(given),
        ]
        subprocess.run(command, check=True, capture_output=True)
        return given.read_bytes()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
