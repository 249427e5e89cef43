"""``cedarbox policy check``: everything that is wrong with policies, each with its file, line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cedarbox.cli.policy_bundle import PlainEntities, PlainLinks, PlainSchema, configured_bundle
from cedarbox.cli.policy_reporting import AsJson, Format, Output, emit

__all__ = ["check"]


def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            readable=False,
            help="Bundles, directories of any Cedar policies, or .cedar files; by default the bundle of the settings.",
            show_default=False,
        ),
    ] = None,
    *,
    schema: PlainSchema = None,
    entities: PlainEntities = None,
    links: PlainLinks = None,
    deny_warnings: Annotated[bool, typer.Option("--deny-warnings", help="Fail when there is a warning too.")] = False,
    form: Format = "text",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Check that policies parse and fit the schema, and so do entities, metadata and test files. Tells every error.

    It also tells what Cedar's validator warns of: policies that no request can match, text that mixes scripts or turns
    the direction of writing.

    Exit code 0: nothing is wrong. 1: there are errors, or warnings with --deny-warnings. 2: an option cannot be used.

    Example: cedarbox policy check policies/airgapped --format github
    """
    # Only when it is used: it reads test cases, and so YAML.
    from cedarbox.review.check import check as check_policies

    given = paths or [configured_bundle()]
    report = check_policies(given, schema=schema, entities=entities, links=links, deny_warnings=deny_warnings)
    emit(report, form, output, as_json=as_json)
