"""Users and groups of a manifest, in images that lack the programs for them.

The SDK makes accounts with ``groupadd``, ``useradd`` and ``usermod``, and stops when one is missing (Alpine, images
that were slimmed) or when the account is there already. Here an account that exists is taken as it is, and where a
program is missing its lines are written. Switching the user is BoxLite's own doing and needs neither ``sudo`` nor
``su``; it gives a command the user's own group and none of its others (measured on BoxLite 0.10.8).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from agents.sandbox.errors import ExecNonZeroError
from agents.sandbox.types import ExecResult

from cedarbox.boxlite.filesystem import FileSession
from cedarbox.errors import ConfigurationError

__all__ = ["AccountSession", "check_account_name"]

# useradd(8), CAVEATS: the portable form of a name, at most 32 characters.
_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")

_COMMON: Final = """PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH; umask 022
has() { [ -f "$1" ] && cut -d: -f1 "$1" | grep -qxF -- "$2"; }
free() { n=1000; while cut -d: -f3 /etc/passwd /etc/group | grep -qx "$n"; do n=$((n+1)); done; echo "$n"; }
secret() { [ ! -f "$1" ] || printf '%s\\n' "$2" >>"$1"; }
group() { has /etc/group "$1" && return
printf '%s:x:%s:\\n' "$1" "$2" >>/etc/group && secret /etc/gshadow "$1:!::"; }
"""

_GROUPADD: Final = f"""{_COMMON}
has /etc/group "$1" && exit 0
if command -v groupadd >/dev/null; then exec groupadd -- "$1"; fi
group "$1" "$(free)"
"""

_USERADD: Final = f"""{_COMMON}
has /etc/passwd "$1" && exit 0
if command -v useradd >/dev/null; then
if has /etc/group "$1"; then exec useradd -g "$1" -M -s /usr/sbin/nologin -- "$1"; fi
exec useradd -U -M -s /usr/sbin/nologin -- "$1"; fi
n=$(free); group "$1" "$n" || exit 1
gid=$(grep "^$1:" /etc/group | head -n 1 | cut -d: -f3)
printf '%s:x:%s:%s::/home/%s:/usr/sbin/nologin\\n' "$1" "$n" "$gid" "$1" >>/etc/passwd || exit 1
secret /etc/shadow "$1:!::0:99999:7:::"
"""

# $1 the group, $2 the user.
_USERMOD: Final = f"""{_COMMON}
if command -v usermod >/dev/null; then exec usermod -aG "$1" -- "$2"; fi
members=$(grep "^$1:" /etc/group | head -n 1 | cut -d: -f4)
case ",$members," in *",$2,"*) exit 0;; ,,) ;; *) members=$members,;; esac
sed "s/^$1:\\([^:]*:[^:]*\\):.*/$1:\\1:$members$2/" /etc/group >/etc/.group.new && cat /etc/.group.new >/etc/group
r=$?; rm -f /etc/.group.new; exit $r
"""


def check_account_name(name: str) -> str:
    """Check the name of a user or group.

    Raises:
        ConfigurationError: It is not of the portable form.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"manifest users: the name {name!r} cannot be used",
            hint="begin with a small letter; use small letters, digits, - and _, at most 32",
        )
    return name


class AccountSession(FileSession):
    """The part of a session that makes the accounts of a manifest."""

    async def _exec_checked_nonzero(self, *command: str | Path) -> ExecResult:
        # The SDK makes accounts through this method and in no other way (agents 0.24, manifest_application).
        words = [str(word) for word in command]
        match words:
            case ["groupadd", group]:
                return await self._account(_GROUPADD, group)
            case ["useradd", "-U", "-M", "-s", "/usr/sbin/nologin", user]:
                return await self._account(_USERADD, user)
            case ["usermod", "-aG", group, user]:
                return await self._account(_USERMOD, group, user)
        return await super()._exec_checked_nonzero(*command)

    async def _account(self, script: str, *names: str) -> ExecResult:
        result = await self._tool(script, *map(check_account_name, names))
        if not result.ok():
            raise ExecNonZeroError(result, command=("sh", "-c", "make an account", *names))
        return result
