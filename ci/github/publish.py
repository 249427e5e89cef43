"""Hands the report of a review to GitHub: ``publish.py comment FILE`` and ``publish.py sarif FILE``.

It speaks to the API of the server that the workflow runs on, with the token of the job, and to nothing else. What
cannot be handed over is a warning: the review has its own exit code. The token of a pull request from a fork can write
nothing.

Only the standard library is used, so that the Action needs no other action.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import sys
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

_TIMEOUT_S = 30
# Of 100 comments; GitHub takes 2,500 on a pull request.
_MAX_PAGES = 100
_MARKER = re.compile(r"<!-- cedarbox-policy:[0-9a-f]{32} -->")
_COMMENTS = """
query($owner: String!, $name: String!, $number: Int!, $after: String) {
  repository(owner: $owner, name: $name) {
    pullRequest(number: $number) {
      comments(first: 100, after: $after) {
        nodes { databaseId body viewerDidAuthor }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}
"""


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would take the token to another host."""

    def redirect_request(self, *given: Any, **named: Any) -> None:
        return None


class Refused(Exception):
    """GitHub did not take it, or something that is needed is missing."""


def main() -> int:
    """Hand over a file; return the exit code."""
    if len(sys.argv) != 3 or sys.argv[1] not in _HANDED:
        print("usage: publish.py comment|sarif FILE", file=sys.stderr)
        return 2
    try:
        _HANDED[sys.argv[1]](Path(sys.argv[2]).read_bytes())
    except (Refused, OSError, HTTPException) as error:
        told = " ".join(str(error).split()).replace("%", "%25")
        print(f"::warning title=cedarbox policy review::The {sys.argv[1]} could not be handed over: {told}")
    return 0


def comment(content: bytes) -> None:
    """Write the comment of the pull request, or the one that was written before anew.

    A comment counts as written before when it begins with the same marker and is of the same author: anybody can write
    the marker.
    """
    body = content.decode("utf-8", "replace")
    marker = body.partition("\n")[0]
    if not _MARKER.fullmatch(marker):
        raise Refused("the file does not begin with the marker of a review")
    commit = os.environ.get("REVIEW_COMMIT", "")
    if re.fullmatch("[0-9a-f]{40,64}", commit):
        # A later push may not have been reviewed.
        body += f"<p>Commit <code>{commit}</code></p>\n"
    number = _variable("REVIEW_PULL_REQUEST")
    if not re.fullmatch(r"[0-9]{1,10}", number):
        raise Refused("there is no pull request")
    for one in _comments(int(number)):
        mine = one.get("viewerDidAuthor") is True and str(one.get("body")).startswith(marker)
        if mine and isinstance(one.get("databaseId"), int):
            _call("PATCH", f"/repos/{_repository()}/issues/comments/{one['databaseId']}", {"body": body})
            return
    _call("POST", f"/repos/{_repository()}/issues/{number}/comments", {"body": body})


def sarif(content: bytes) -> None:
    """Upload a SARIF file to code scanning."""
    upload = {
        "commit_sha": _variable("GITHUB_SHA"),
        "ref": _variable("GITHUB_REF"),
        "sarif": base64.b64encode(gzip.compress(content)).decode(),
        "tool_name": "cedarbox",
    }
    _call("POST", f"/repos/{_repository()}/code-scanning/sarifs", upload)


def _comments(number: int) -> Iterator[dict[str, Any]]:
    owner, _, name = _repository().partition("/")
    after = None
    for _ in range(_MAX_PAGES):
        variables = {"owner": owner, "name": name, "number": number, "after": after}
        answer = _call("POST", None, {"query": _COMMENTS, "variables": variables})
        try:
            page = answer["data"]["repository"]["pullRequest"]["comments"]
            # What may not be seen is null.
            yield from (node for node in page["nodes"] if isinstance(node, dict))
            if not page["pageInfo"]["hasNextPage"]:
                return
            after = page["pageInfo"]["endCursor"]
        except (KeyError, TypeError):
            raise Refused("the comments of the pull request cannot be read") from None


def _call(method: str, path: str | None, document: Any) -> Any:
    """Call the API; without a path, the one for queries."""
    address = _variable("GITHUB_GRAPHQL_URL") if path is None else f"{_variable('GITHUB_API_URL')}{path}"
    if not address.startswith(("https://", "http://")):
        raise Refused("the address of the API is none")
    token = _variable("GITHUB_TOKEN")
    if not re.fullmatch("[!-~]+", token):
        # An error of the client would quote it.
        raise Refused("GITHUB_TOKEN has characters that no token has, such as a line end")
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "Content-Type": "application/json",
    }
    request = Request(address, json.dumps(document).encode(), headers, method=method)  # noqa: S310 - checked above
    try:
        with build_opener(_NoRedirect).open(request, timeout=_TIMEOUT_S) as answer:
            return json.loads(answer.read() or b"null")
    except HTTPError as error:
        why = "; the job needs the permission, which a fork has not" if error.code in {401, 403, 404} else ""
        raise Refused(f"HTTP {error.code}{why}") from None
    except ValueError:
        raise Refused("the answer is no JSON") from None


def _repository() -> str:
    name = _variable("GITHUB_REPOSITORY")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", name):
        raise Refused("GITHUB_REPOSITORY names no repository")
    return name


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise Refused(f"{name} is not set")
    return value


_HANDED = {"comment": comment, "sarif": sarif}

if __name__ == "__main__":
    sys.exit(main())
