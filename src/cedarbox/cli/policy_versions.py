"""What the commands that compare and prove share: which versions are meant, and how they are searched."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cedarbox.ed25519 import load_public_key
from cedarbox.errors import ConfigurationError
from cedarbox.files import write_file
from cedarbox.policy.signing import Signers
from cedarbox.text import printable

if TYPE_CHECKING:
    from cedarbox.review.diff.compared import Incomparable
    from cedarbox.review.diff.plan import Plan
    from cedarbox.review.prove import Answer, Progress, Query, Searcher

__all__ = [
    "Accepted",
    "Acceptors",
    "Base",
    "Bundles",
    "Cedar",
    "DumpSmt",
    "Extras",
    "Head",
    "Links",
    "PublicKeys",
    "Schema",
    "SecondOpinion",
    "Threshold",
    "Timeout",
    "outcomes",
    "progress",
    "prover",
]

Base = Annotated[
    str | None,
    typer.Argument(
        help="How it was: a revision, REVISION... for where it was left, REVISION:DIRECTORY, or a directory. By "
        "default where this branch left the main branch.",
        show_default=False,
    ),
]
Head = Annotated[str | None, typer.Argument(help="How it is to be; by default the working tree.", show_default=False)]
Bundles = Annotated[
    list[Path] | None,
    typer.Option(
        "--bundle",
        readable=False,
        help="Directory of a bundle, for revisions; may be repeated. By default each bundle that differs.",
        show_default=False,
    ),
]
Schema = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        help="A Cedar schema: the directories hold plain Cedar and no bundles. A revision that has this file uses its "
        "own.",
        show_default=False,
    ),
]
Links = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        help="With --schema: the links of templates in JSON. A revision that has this file uses its own. By default "
        "links.json beside the policies of each version.",
        show_default=False,
    ),
]
PublicKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--public-key",
        readable=False,
        help="Both versions must be signed by this key; may be repeated. By default no signature is looked at.",
        show_default=False,
    ),
]
Threshold = Annotated[int, typer.Option(min=1, help="How many different keys must have signed.")]
Accepted = Annotated[
    Path | None, typer.Option(readable=False, help="File of signed acceptances, see policy accept.", show_default=False)
]
Acceptors = Annotated[
    list[str] | None,
    typer.Option(
        "--acceptor",
        metavar="FILE",
        help="Public key of someone whose acceptance counts; may be repeated. Give it from where the change cannot "
        "reach it: origin/main:keys/desk.pub is the file as it is in that revision.",
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option(min=0.01, help="Seconds for each search.")]
SecondOpinion = Annotated[
    bool, typer.Option("--second-opinion", help="Have z3 prove again what cvc5 proved; both must agree.")
]
DumpSmt = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Write each question as an SMT-LIB file that says what it asks; any solver can be asked again.",
        show_default=False,
    ),
]
Cedar = Annotated[
    Path | None,
    typer.Option(
        metavar="PROGRAM",
        help="Have Cedar's own symbolic compiler check the encoding, in plain Cedar: the cedar program, built with its "
        "feature analyze, which is told its solver by the variable CVC5. When it contradicts, nothing is decided.",
        show_default=False,
    ),
]


@dataclass
class Extras:
    """What is done besides with each question.

    Attributes:
        dump_smt: Where each is written; None for nowhere.
        cedar: The program that is asked too; None for none.
        notes: What is to be told of that when all is done.
    """

    dump_smt: Path | None = None
    cedar: Path | None = None
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def around(self, searcher: Searcher, schema: str) -> Iterator[Searcher]:
        """Put the program beside a prover.

        Args:
            searcher: The prover.
            schema: Text of the schema.
        """
        if self.cedar is None:
            yield searcher
            return
        from cedarbox.review.prove.crosscheck import CrossChecked

        checked = CrossChecked(searcher, schema, self.cedar)
        yield checked
        self.notes += checked.notes

    def dump(self) -> Callable[[str, str], None] | None:
        """Return what writes a question.

        Raises:
            ConfigurationError: The directory cannot be made.
        """
        directory = self.dump_smt
        if directory is None:
            return None
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_written(directory, error) from error

        def write(name: str, text: str) -> None:
            try:
                write_file(directory / name, text.encode(), 0o644)
            except OSError as error:
                raise _not_written(directory / name, error) from error

        return write


def _not_written(path: Path, error: OSError) -> ConfigurationError:
    told = f"{printable(str(path))}: cannot be written ({error.strerror})"
    return ConfigurationError(told, hint="name a directory that can be written")


def outcomes(
    base: str | None,
    head: str | None,
    *,
    bundles: Sequence[Path] | None,
    schema: Path | None,
    links: Path | None,
    public_keys: Sequence[Path] | None,
    threshold: int,
    timeout: float,
    second_opinion: bool,
    baseline: Path | None = None,
    configured: bool = False,
    extras: Extras | None = None,
) -> tuple[Plan | Incomparable, ...]:
    """Read both versions and search what the change does; the arguments are the options.

    Raises:
        CedarboxError: Something given cannot be used.
    """
    from cedarbox.review.diff.run import plans
    from cedarbox.review.revisions import pairs

    if threshold > 1 and not public_keys:
        raise ConfigurationError("--threshold is given, and no --public-key", hint="name the keys that count")
    if public_keys and schema:
        raise ConfigurationError("--public-key is for bundles, --schema for plain Cedar", hint="leave one of them out")
    signers = Signers.of(map(load_public_key, public_keys), threshold) if public_keys else None
    found = pairs(
        base,
        head,
        bundles or (),
        signers=signers,
        schema=schema,
        links=links,
        baseline=baseline,
        configured=configured,
    )
    with progress() as told:
        return plans(found, prover(timeout, second_opinion=second_opinion, extras=extras), told)


def prover(
    timeout: float, *, second_opinion: bool, extras: Extras | None = None
) -> Callable[[str], AbstractContextManager[Searcher]]:
    """Return what makes a prover of a schema.

    Args:
        timeout: Seconds for each search.
        second_opinion: Ask z3 too.
        extras: What is done besides with each question.

    Raises:
        ConfigurationError: What is to be done besides cannot be.
    """
    also = extras or Extras()
    if also.cedar is not None and shutil.which(also.cedar) is None:
        told = f"--cedar {printable(str(also.cedar))}: no such program"
        raise ConfigurationError(told, hint="name the cedar program, or leave the option out")
    dump = also.dump()

    @contextmanager
    def make(schema: str) -> Iterator[Searcher]:
        from cedarbox.review.prove import Prover, Unavailable, available
        from cedarbox.review.prove.solvers import installed

        if why := available():
            yield Unavailable(why)
            return
        if second_opinion and len(installed()) < 2:
            hint = "pip install 'cedarbox[prove]' brings both"
            raise ConfigurationError("--second-opinion needs two solvers, and one is installed", hint=hint)
        with (
            Prover(schema, time_limit_s=timeout, second_opinion=second_opinion, dump=dump) as searcher,
            also.around(searcher, schema) as checked,
        ):
            yield checked

    return make


@contextmanager
def progress() -> Iterator[Progress | None]:
    """Show how far the searches are on a terminal; elsewhere nothing is shown."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("searching", total=None)

        def told(done: int, total: int, query: Query, answer: Answer) -> None:
            del answer
            shown.update(task, completed=done, total=total, description=query.label or "searching")

        yield told
