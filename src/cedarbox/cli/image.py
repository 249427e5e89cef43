"""``cedarbox image``: images on this host, without a registry."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from cedarbox.boxlite.image_lock import LOCK_FILE, read_lock, write_lock
from cedarbox.boxlite.image_pull import pulled
from cedarbox.boxlite.image_signatures import load_keys, read_signature
from cedarbox.boxlite.image_store import MAX_SIZE, Found, ImageStore
from cedarbox.boxlite.images import LayoutVerifier
from cedarbox.boxlite.references import parse_reference
from cedarbox.errors import ConfigurationError, ImageError
from cedarbox.settings import load_settings

__all__ = ["app"]

app = typer.Typer(help="Import, list and pin the images that sandboxes boot.", no_args_is_help=True)

_GIB = 1024**3
_PLAIN_WIDTH = 160
_SHOWN_DIGITS = 19  # sha256: and twelve more

Store = Annotated[
    Path | None,
    typer.Option("--store", readable=False, help="Image store; default that of the settings, else of this user."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Lock = Annotated[Path | None, typer.Option("--lock", readable=False, help=f"Lock file; default {LOCK_FILE}.")]
MaxSize = Annotated[int, typer.Option("--max-size", min=1, help="GiB that an image may have, packed and unpacked.")]
_DEFAULT_GIB = MAX_SIZE // _GIB


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(readable=False, help="OCI layout (directory or tar) or docker save tar.")],
    *,
    name: Annotated[str | None, typer.Option(help="Name; default the one that the image brings along.")] = None,
    store: Store = None,
    max_size: MaxSize = _DEFAULT_GIB,
    signature: Annotated[
        Path | None, typer.Option(readable=False, help="What cosign sign --output-signature wrote; with --payload.")
    ] = None,
    payload: Annotated[
        Path | None, typer.Option(readable=False, help="What cosign sign --output-payload wrote; with --signature.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an image from a file to the last byte and put it into the store.

    Of a multi-platform image the part for this host is taken. The name is then good for image= and [sandbox] image,
    without a network. Signatures that cosign save put into a layout are kept with it.

    Exit code 0: it is in the store. 2: it cannot be used; the store is as it was.

    Example: cedarbox image import python.tar --name python:3.12-slim
    """
    if (signature is None) != (payload is None):
        raise ConfigurationError("--signature and --payload belong together", hint="give both, or neither")
    more = () if signature is None or payload is None else (read_signature(signature, payload),)
    found = _store(store).add(source, name=name, limit=max_size * _GIB, signatures=more)
    _told(found, as_json=as_json)


@app.command()
def pull(
    reference: Annotated[str, typer.Argument(help="Image reference; pin it with @sha256: or the lock file.")],
    *,
    store: Store = None,
    max_size: MaxSize = _DEFAULT_GIB,
    as_json: AsJson = False,
) -> None:
    """Pull an image from its registry into the store. Logins are in the settings, [registries."host"].

    Exit code 0: it is in the store. 2: it cannot be had; the store is as it was.

    Example: cedarbox image pull registry.corp.example/agents/python:3.12-slim
    """
    registries = load_settings().logins()
    limit = max_size * _GIB
    found = asyncio.run(pulled(_store(store), reference, registries=registries, named=True, limit=limit))
    _told(found, as_json=as_json)


@app.command("list")
def list_(
    *,
    store: Store = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every image again and check its digests.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the images of the store.

    Exit code 0: printed. 1: --verify found a damaged image. 2: the store cannot be read.

    Example: cedarbox image list --verify
    """
    opened = _store(store)
    rows = list(opened.verify()) if verify else [(found, "") for found in opened.list()]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    if as_json:
        documents = [_document(found) | ({"damaged": wrong or None} if verify else {}) for found, wrong in rows]
        typer.echo(orjson.dumps(documents).decode())
    else:
        table = Table("name", "digest", "platform", "size", "imported", "from", box=None)
        for found, _ in rows:
            image = found.image
            names = "\n".join(map(_short, found.names)) or "(no name)"
            size = f"{image.size / 1024**2:.1f} MiB"
            table.add_row(names, image.digest[:_SHOWN_DIGITS], image.platform, size, image.imported, image.repository)
        console.print(table)
        for found, wrong in rows:
            if wrong:
                console.print(f"DAMAGED: {found.image.digest}: {wrong}")
    raise typer.Exit(1 if any(wrong for _, wrong in rows) else 0)


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="Name or digest of an image of the store.")],
    *,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(readable=False, help="PEM file of a key; default [sandbox] image_keys. May be given again."),
    ] = None,
    store: Store = None,
    lock: Lock = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a trusted key signed an image, in cosign's format; every byte of the image is checked as well.

    Exit code 0: it is signed. 1: it is not, or the image is damaged. 2: no such image, or a key cannot be used.

    Example: cedarbox image verify python:3.12-slim --public-key keys/images.pub
    """
    keys = load_keys(public_key or load_settings().sandbox.image_keys)
    if not keys:
        raise ConfigurationError("no key is given", hint="give --public-key, or set [sandbox] image_keys")
    opened = _store(store, lock)
    if (found := opened.find(name)) is None:
        hint = "cedarbox image list shows what it has"
        raise ConfigurationError(f"the image store has no {name}", hint=hint)
    try:
        actual = LayoutVerifier().verify(found.path).digest
        wrong = opened.unsigned(found, keys) if actual == found.image.layout_digest else f"its layout holds {actual}"
    except ImageError as error:
        wrong = error.message
    if as_json:
        document = {"name": name, "digest": found.image.digest, "signed": not wrong, "reason": wrong or None}
        typer.echo(orjson.dumps(document).decode())
    else:
        typer.echo(f"{found.image.digest} is {f'not signed: {wrong}' if wrong else 'signed by a trusted key'}")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def pin(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names to pin; all of the store when none is given.")
    ] = None,
    *,
    lock: Lock = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; say where store and lock differ.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Write down which digest each name has, or check it. What is pinned boots with that digest or not at all.

    Exit code 0: written, or nothing differs. 1: --check found a difference. 2: no such name, or a file is damaged.

    Example: cedarbox image pin --check
    """
    opened = _store(store, lock)
    have = {name: found.image.digest for found in opened.list() for name in found.names}
    aliases = {found.image.digest: frozenset((found.image.digest, *found.image.aliases)) for found in opened.list()}
    locked = read_lock(opened.lock)
    chosen = [parse_reference(name).name for name in names or ()]
    if missing := [name for name in chosen if name not in have and not (check and name in (locked or {}))]:
        hint = "cedarbox image list shows what it has"
        raise ConfigurationError(f"the image store has no {_short(missing[0])}", hint=hint)
    if check:
        if locked is None:
            raise ConfigurationError(f"{opened.lock}: there is no lock file", hint="write it with cedarbox image pin")
        looked = sorted(chosen or {*have, *locked})
        differing = [
            {"name": name, "locked": locked.get(name), "stored": have.get(name)}
            for name in looked
            if locked.get(name) not in aliases.get(have.get(name, ""), frozenset())
        ]
        if as_json:
            typer.echo(orjson.dumps({"lock": str(opened.lock), "checked": looked, "differing": differing}).decode())
        else:
            for each in differing:
                pinned, stored = each["locked"] or "not pinned", each["stored"] or "nothing"
                typer.echo(f"{_short(str(each['name']))}: the lock says {pinned}, the store has {stored}")
            typer.echo(f"{len(looked) - len(differing)} of {len(looked)} names agree")
        raise typer.Exit(1 if differing else 0)
    wanted = {name: have[name] for name in chosen or have}
    write_lock(opened.lock, {**(locked or {}), **wanted})
    if as_json:
        typer.echo(orjson.dumps({"lock": str(opened.lock), "pinned": wanted}).decode())
    else:
        for name, digest in sorted(wanted.items()):
            typer.echo(f"{_short(name)} is pinned to {digest}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A name, or sha256:… for an image with all its names.")],
    *,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Remove a name; the image goes with its last name. A saved session of it cannot be resumed then.

    Exit code 0: removed. 2: there is none.

    Example: cedarbox image remove python:3.12-slim
    """
    digest, gone = _store(store).remove(name)
    if as_json:
        typer.echo(orjson.dumps({"digest": digest, "removed": gone}).decode())
    else:
        typer.echo(f"removed {digest}" if gone else f"removed the name; {digest} has others and stays")


def _store(directory: Path | None, lock: Path | None = None) -> ImageStore:
    given = load_settings().sandbox
    return ImageStore(directory or given.store, lock=lock or given.lock or LOCK_FILE)


def _told(found: Found, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(_document(found) | {"notes": found.notes}).decode())
        return
    for note in found.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{', '.join(map(_short, found.names)) or '(no name)'} is {found.image.digest}")


def _document(found: Found) -> dict[str, Any]:
    return {"names": found.names, **dataclasses.asdict(found.image), "layout": str(found.path)}


def _short(name: str) -> str:
    return parse_reference(name).short
