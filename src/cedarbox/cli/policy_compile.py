"""``cedarbox policy compile``: the allow-list that a backend takes, proved not to be wider than the policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cedarbox.cli.policy_bundle import Bundle, Principal
from cedarbox.cli.policy_endpoints import declared_agent
from cedarbox.cli.policy_reporting import AsJson, Format, Output, emit
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.files import write_file

__all__ = ["compile_policies"]

_MAX_LIST = 4 * 1024 * 1024


def compile_policies(
    bundle: Bundle,
    *,
    backend: Annotated[Literal["boxlite", "nftables", "proxy", "squid"], typer.Option(help="Who takes the list.")],
    principal: Principal = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="Write the list there, and only when it is proved; - prints it instead of the report.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Do not compile, but hold this list against the policies.", show_default=False
        ),
    ] = None,
    narrow: Annotated[
        bool, typer.Option("--narrow", help="Leave out what depends on more than a list can tell, instead of refusing.")
    ] = False,
    dials: Annotated[
        list[str] | None,
        typer.Option(
            help="For proxy and squid: it dials addresses of this class only, such as public; may be repeated.",
            show_default=False,
        ),
    ] = None,
    speaks: Annotated[
        list[str] | None,
        typer.Option(
            help="For proxy and the tunnels of squid: this protocol only passes, tls, http or tcp; may be repeated.",
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds for each search of the solver.")] = 20.0,
    form: Format = "text",
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """Compile what an agent may connect to into the list of a backend, and prove that it opens nothing more.

    What an entry opens is encoded back as Cedar. Then no connection may be opened by the list and denied by the
    policies: by the arithmetic of regions, by Cedar on single connections, and by a solver where one is installed.
    Where a backend cannot tell a port, a protocol or a class of addresses, the entry is left out, with an example of
    what stays closed. Where a policy depends on something else, the list is refused.

    The rules for squid are for version 5 and later (tried with 5.7): names and ports, and with --dials the classes of
    addresses. They do not look into tunnels, so --speaks is believed there; and who the agent is must be said before
    them, in an acl cedarbox_agent.

    Exit code 0: proved to be equal to the policies, or narrower. 1: refused, or the list of --check opens what the
    policies deny. 2: bad input. 3: not proved. Nothing is written unless it is 0.

    Example: cedarbox policy compile policies/developer --backend proxy --dials public --speaks tls --into hosts.txt
    """
    from cedarbox.review.allowlist.backends import backend_of
    from cedarbox.review.allowlist.compiling import check_list, compile_list, report_of
    from cedarbox.review.subject import Subject

    chosen = backend_of(backend, classes=dials or (), protocols=speaks or ())
    subject = Subject.load(bundle)
    assert subject.bundle is not None  # noqa: S101 - it was loaded as one
    agent = declared_agent(subject.bundle, principal)
    if check is not None:
        if narrow or into is not None:
            raise ConfigurationError("--check compiles nothing", hint="leave --narrow and --into out")
        text = _text(check)
        try:
            told = check_list(subject, agent, chosen, text, time_limit_s=time_limit)
        except BundleError:
            raise
        except ConfigurationError as error:
            raise BundleError(error.message, path=check, hint=error.hint) from None
    else:
        told = compile_list(subject, agent, chosen, narrow=narrow, time_limit_s=time_limit)
    if str(into) == "-" and told.good:
        typer.echo(told.text, nl=False)
        raise typer.Exit(0)
    if into is not None and told.good:
        try:
            write_file(into, told.text.encode(), 0o644)
        except OSError as error:
            raise ConfigurationError(f"{into}: it cannot be written: {error.strerror}", hint="check the path") from None
    emit(report_of(told), form, output, as_json=as_json)


def _text(path: Path) -> str:
    from cedarbox.review.limited import limited_text

    return limited_text(path, _MAX_LIST, hint="no list is that large")
