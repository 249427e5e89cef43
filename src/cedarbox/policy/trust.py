"""What a site demands of a bundle before it decides anything: signatures, an expiry not reached, no step back.

:func:`load` is the one way in, at the start and for each later bundle. Like loading a bundle it uses the disk: the
files of public keys, and a state file that remembers for each bundle name the highest revision that was accepted and
its digest.

What the state file does not cover: someone who can delete or replace it, or put back an older copy of it or of the
whole disk, also takes its memory away, and an older bundle whose signature has not expired is accepted again. Keep it
where only the user that runs cedarbox can write, and sign with an expiry. Each host has a state of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import rfc8785

from cedarbox.ed25519 import load_public_key
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.files import open_regular, write_file
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.signing import Signers

__all__ = ["Trust", "load"]

_FORMAT: Final = 1
_MAX_STATE: Final = 1024 * 1024
_RESET: Final = "restore the file; to remove it is to forget every revision that was accepted"


@dataclass(frozen=True, slots=True)
class Trust:
    """What is demanded of a bundle.

    Attributes:
        required: A bundle must be signed, and none older than the newest accepted is taken.
        signers: Whose signatures count; None when no keys are known. With keys, a signature that is there is verified
            even when none is required.
        state: The state file; made when it is missing. Used only when signatures are required.
    """

    required: bool = False
    signers: Signers | None = None
    state: Path | None = None

    def __post_init__(self) -> None:
        if self.required and self.signers is None:
            raise ConfigurationError(
                "signatures are required and no public key is given", hint="name the keys in policy.public_keys"
            )
        if self.required and self.state is None:
            raise ConfigurationError(
                "signatures are required and there is no state file", hint="name one in policy.state"
            )

    @classmethod
    def read(
        cls, public_keys: Sequence[Path], *, required: bool, threshold: int = 1, state: Path | None = None
    ) -> Trust:
        """Read the public keys.

        Args:
            public_keys: PEM files with one Ed25519 key each.
            required: As in the class.
            threshold: How many different keys must have signed.
            state: As in the class.

        Raises:
            ConfigurationError: A key cannot be read, or there are fewer different keys than the threshold.
        """
        if not public_keys and threshold == 1:
            return cls(required, None, state)
        return cls(required, Signers.of(map(load_public_key, public_keys), threshold), state)


def load(source: PolicyBundle | Path | str, trust: Trust, now: datetime) -> PolicyBundle:
    """Read and check a bundle, and accept it or refuse it.

    Args:
        source: The directory of the bundle, or a bundle that was loaded. The latter is read again when signers are
            known, whatever it says of itself, and must still be the same on disk.
        trust: What is demanded.
        now: The time, with its zone.

    Returns:
        The bundle. When signatures are required, its revision is on disk in the state file by then.

    Raises:
        BundleError: It is refused, or the state file cannot be used.
    """
    # 1. to 7. are in PolicyBundle.load.
    if isinstance(source, PolicyBundle) and trust.signers is None:
        bundle = source
    else:
        given = source.path if isinstance(source, PolicyBundle) else source
        bundle = PolicyBundle.load(given, signers=trust.signers, signature_required=trust.required)
        if isinstance(source, PolicyBundle) and bundle.digest != source.digest:
            raise BundleError("it was changed since it was loaded", path=bundle.path, hint="load it again")
    # 8. It has not expired.
    bundle.check_current(now)
    # 9. It is no step back; from here on, an older one is.
    if trust.required and trust.state is not None:
        _remember(bundle, trust.state)
    return bundle


def _remember(bundle: PolicyBundle, path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path):
            accepted = _read(path)
            if bundle.name in accepted and _is_step(bundle, path, *accepted[bundle.name]):
                return
            content = _document({**accepted, bundle.name: (bundle.revision, bundle.digest)})
            write_file(path, content, 0o600)
    except OSError as error:
        hint = "check the owner and mode of the file and its directory"
        raise BundleError(f"the state file cannot be used ({error.strerror})", path=path, hint=hint) from None


def _is_step(bundle: PolicyBundle, path: Path, revision: int, digest: str) -> bool:
    """Whether there is nothing to remember; refuses a step back."""
    if bundle.revision < revision:
        message = f"revision {bundle.revision} of {bundle.name!r}, and {path} says that {revision} was accepted already"
        raise BundleError(message, path=bundle.path, hint="give the older policies a new, higher revision")
    if bundle.revision == revision and bundle.digest != digest:
        message = f"revision {revision} of {bundle.name!r} was accepted with other content, says {path}"
        raise BundleError(message, path=bundle.path, hint="raise revision in bundle.toml with each change")
    return bundle.revision == revision


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    # The state file itself is replaced, so the lock is on a file of its own.
    lock = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, tuple[int, str]]:
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return {}
    with file:
        status = os.fstat(file.fileno())
        if status.st_size > _MAX_STATE:
            raise BundleError(f"larger than {_MAX_STATE} bytes", path=path, hint=_RESET)
        if status.st_uid not in {0, os.geteuid()} or stat.S_IMODE(status.st_mode) & 0o022:
            hint = f"check it, then run: chmod 600 {path}"
            raise BundleError("the state file can be changed by others", path=path, hint=hint)
        data = file.read(_MAX_STATE + 1)
    try:
        document = json.loads(data)
        accepted = {name: (item["revision"], item["digest"]) for name, item in document["bundles"].items()}
        canonical = _document(accepted) == data
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        canonical = False
    if not canonical or not all(type(item[0]) is int and isinstance(item[1], str) for item in accepted.values()):
        raise BundleError("not a state file of cedarbox, or a damaged one", path=path, hint=_RESET)
    return accepted


def _document(accepted: Mapping[str, tuple[Any, Any]]) -> bytes:
    bundles = {name: {"revision": revision, "digest": digest} for name, (revision, digest) in accepted.items()}
    return rfc8785.dumps({"format": _FORMAT, "bundles": bundles}) + b"\n"
