"""``cedarbox policy diff``: what a change of policies permits that was not, proved, with a request for each thing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from cedarbox.cli import policy_versions as versions
from cedarbox.cli.policy_reporting import AsJson, Format, Output, emit
from cedarbox.ed25519 import MAX_PEM, load_public_key, parse_public_key
from cedarbox.errors import ConfigurationError
from cedarbox.text import printable
from cedarbox.times import in_utc

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from cedarbox.review.version import Pair

__all__ = ["diff"]


def diff(
    base: versions.Base = None,
    head: versions.Head = None,
    *,
    bundle: versions.Bundles = None,
    configured: Annotated[
        bool,
        typer.Option(
            "--configured",
            help="Compare the bundle that cedarbox.toml names with the one that it named, and the settings.",
        ),
    ] = False,
    schema: versions.Schema = None,
    links: versions.Links = None,
    public_key: versions.PublicKeys = None,
    threshold: versions.Threshold = 1,
    accepted: versions.Accepted = None,
    acceptor: versions.Acceptors = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="A baseline of policy lint outside the bundle: tell what the change adds to it.",
            show_default=False,
        ),
    ] = None,
    timeout: versions.Timeout = 10,
    second_opinion: versions.SecondOpinion = False,
    dump_smt: versions.DumpSmt = None,
    cedar: versions.Cedar = None,
    form: Format = "text",
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """Compare two versions of policies: per action and agent what is widened, narrowed, unchanged, or not decided.

    Each widening comes with a request that Cedar answers otherwise in both versions, the policies that determine the
    answers, and the lines that did it. What changes who the agents are, who approves, and bundle.toml is covered too.
    It warns of what makes the review itself say less: a rule off, a new suppression, a test case or a property gone.

    Exit code 0: nothing is widened, or each widening is accepted. 1: something is. 2: bad input. 3: not decided.

    Example: cedarbox policy diff origin/main... --bundle policies/airgapped --format markdown
    """
    from cedarbox.review.beside import BASELINE
    from cedarbox.review.diff.acceptance import judge, read_accepted
    from cedarbox.review.diff.plan import Plan
    from cedarbox.review.diff.report import report
    from cedarbox.review.diff.weakening import weakened
    from cedarbox.review.diff.widened import widened
    from cedarbox.review.revisions import compared_with
    from cedarbox.review.subject import shown

    if (accepted is None) != (acceptor is None):
        raise ConfigurationError("--accepted and --acceptor go together", hint="give the file and whose keys count")
    # What is given for the acceptances is looked at first: a search takes longer.
    keys = _acceptors(acceptor or (), base, head, bundle or ())
    entries = () if accepted is None or not os.path.lexists(accepted) else read_accepted(accepted)
    extras = versions.Extras(dump_smt, cedar)
    found = versions.outcomes(
        base,
        head,
        bundles=bundle,
        schema=schema,
        links=links,
        public_keys=public_key,
        threshold=threshold,
        timeout=timeout,
        second_opinion=second_opinion,
        baseline=baseline,
        configured=configured,
        extras=extras,
    )
    names = frozenset(each.compared.name for each in found if isinstance(each, Plan))
    pairs = [each.compared.pair if isinstance(each, Plan) else each.pair for each in found]
    now, late = _now(pairs)
    verdict = judge(entries, widened(found), keys, now, names)
    notes = [note for each in found if isinstance(each, Plan) for note in _expired(each, now)]
    notes += [*late, *extras.notes]
    if not found:
        # A wrong base may be why.
        notes.append(f"compared with {compared_with(base, head, bundle or ())}")
    notes += [note for pair in pairs for note in pair.head.notes] + _moved(pairs, head)
    known = any(BASELINE in {*pair.base.beside, *pair.head.beside} for pair in pairs)
    if baseline is not None and pairs and not known and not os.path.lexists(baseline):
        raise ConfigurationError(f"--baseline {shown(baseline)}: in neither version", hint="check the path")
    weak = [finding for each in found for finding in weakened(each, baseline)]
    title = ", ".join(pair.bundle for pair in pairs) or "policies"
    emit(
        report(title, found, verdict, shown(accepted) if accepted else "", notes, weakened=weak),
        form,
        output,
        as_json=as_json,
    )


def _acceptors(
    given: Sequence[str], base: str | None, head: str | None, bundles: Sequence[Path]
) -> list[Ed25519PublicKey]:
    from cedarbox.review.sources import Sources, before, read_at

    sources, keys, old = Sources(bundles), [], None
    for text in given:
        # A colon means a revision, whatever files there are: a change could bring a file with that name along.
        if ":" in text and not text.startswith(("./", "../", "/")):
            keys.append(parse_public_key(read_at(text, MAX_PEM), printable(text)))
            continue
        key = load_public_key(Path(text))
        old = old or sources.named(base, head)
        was = before(Path(text), sources, old, MAX_PEM)
        if was is not None and key != parse_public_key(was, f"{printable(text)} in {old.label}"):
            told = f"--acceptor {printable(text)} is another key than in {old.label}: the change replaces it"
            raise ConfigurationError(told, hint="give it from where the change cannot reach it")
        keys.append(key)
    return keys


def _moved(pairs: Sequence[Pair], head: str | None) -> list[str]:
    """Say how to compare a bundle with itself under another name, when one is gone and one is new."""
    gone = [pair for pair in pairs if pair.head.files is None]
    new = [pair for pair in pairs if pair.base.files is None]
    if len(gone) != 1 or len(new) != 1 or head is not None:
        return []
    # The root of an old version is its commit and its path, as the command takes it.
    how = f"cedarbox policy diff {quote(str(gone[0].base.root))} {quote(f'./{new[0].bundle}')}"
    return [f"{gone[0].bundle} is gone and {new[0].bundle} is new: when it was moved, compare it with itself: {how}"]


def _now(pairs: Sequence[Pair]) -> tuple[datetime, list[str]]:
    """Return the time, and what there is to say of it: it is not before that of a commit, whatever the clock says."""
    clock = datetime.now(UTC)
    commits = (version.committed for pair in pairs for version in (pair.base, pair.head))
    last = max((each for each in commits if each is not None), default=clock)
    if last - clock < timedelta(hours=1):
        return max(last, clock), []
    told = f"it is {in_utc(clock)} by the clock here, and what is compared was committed at {in_utc(last)}"
    return last, [f"{told}: what expires is judged by the later"]


def _expired(plan: object, now: datetime) -> list[str]:
    from cedarbox.review.diff.plan import Plan

    assert isinstance(plan, Plan)  # noqa: S101 - chosen so
    notes = []
    for version in (plan.compared.pair.base, plan.compared.pair.head):
        expires = version.manifest.expires if version.manifest else None
        if expires is not None and now >= expires:
            notes.append(f"the signature of {version.label} expired at {expires:%Y-%m-%d %H:%M:%SZ}: hosts refuse it")
    return notes
