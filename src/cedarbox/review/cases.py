"""The test cases of a policy bundle: ``tests/*.yaml``, one table for each action.

.. code-block:: yaml

    agents:                       # agents that only the tests know, in no group unless it is given
      outsider: {}

    fixtures:                     # named values of this file; those of tests/fixtures.yaml are known to every file
      metadata: [169.254.169.254, "[fd00:ec2::254]"]
      to-the-mirror: {target: mirror.corp.example, ip: 10.0.0.5}

    connect:                      # an action of the schema
      defaults: {principal: agent, port: 443, proto: tls}
      allow:
        - {case: the mirror, with: to-the-mirror, by: mirror-packages}
      deny:
        - {case: the mirror on the internet, target: mirror.corp.example, ip: 203.0.113.7}
        - {case: metadata, target: {fixture: metadata}, by: mirror-never}
        - {case: a number for a host, target: "0xA9FEA9FE", error: numeric}
        - case: other ports and protocols
          with: to-the-mirror
          matrix: {port: [22, 8443], proto: [tcp, udp]}
        - case: look-alikes
          rows:
            a longer name: {target: mirror.corp.example.evil.example}
            another port: {target: mirror.corp.example, port: 22}

A case has the arguments of the builder of its action (see :mod:`cedarbox.policy.actions`), and:

* ``case``: what it is about, in a few words;
* ``principal``: the agent that asks;
* ``by``: the policies that must determine the answer, one or a list. An *allow* needs it. A *deny* without it must be
  determined by no policy, because none permits it;
* ``error``: a *deny* because the request or a policy cannot be evaluated, and a part of what is said then. Without it
  no error may occur;
* ``approval``: for an *allow*, who may approve the call: a name, a list of names any of whom may, ``null`` for nobody
  needs to, or ``{approvers: …, expires: 10m}`` when it matters how long a signature holds. Without it nothing of an
  approval is looked at;
* ``with``: a fixture of several arguments, or a list of such. What the case gives itself goes before it, and it goes
  before the defaults of the table.

Several cases are written as one in three ways, of which a case uses one: a list as the value of one argument makes a
case of each member; ``matrix`` makes one of every combination of its lists; ``rows`` makes one of each row, under the
name of that row. See :mod:`cedarbox.review.fixtures` for what can be shared.

The files decide nothing, so they are not part of the digest of the bundle. Unknown keys, actions, arguments and
fixtures are refused, and so are fixtures that nobody uses and values of the wrong type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cedarbox.errors import BundleError
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.review.case import Case, named_apart
from cedarbox.review.fixtures import FIXTURES_FILE, Fixtures
from cedarbox.review.tables import TableFile

__all__ = ["Case", "Suite", "case_files"]

_MAX_CASES: Final = 50_000


@dataclass(frozen=True, slots=True)
class Suite:
    """A bundle with the cases beside it.

    Attributes:
        bundle: The bundle, with the agents that only the tests know.
        cases: In the order of file names, then of the text.
    """

    bundle: PolicyBundle
    cases: tuple[Case, ...]

    @classmethod
    def load(cls, bundle: PolicyBundle) -> Suite:
        """Read every file of test cases beside a bundle.

        Raises:
            BundleError: There is none, or anything at all is wrong with one; the message names the file and the line.
        """
        cases: list[Case] = []
        agents: dict[str, tuple[Mapping[str, Any], ...]] = {}
        shared = Fixtures()
        files = [TableFile(path, bundle, agents) for path in case_files(bundle.path / "tests")]
        for file in files:
            if file.path.name == FIXTURES_FILE:
                file.declare_fixtures(shared)
        for file in files:
            own = shared if file.path.name == FIXTURES_FILE else Fixtures(shared)
            cases += file.cases(own)
            if len(cases) > _MAX_CASES:
                raise BundleError(f"more than {_MAX_CASES} cases", path=file.path, hint="leave some out")
            if own is not shared:
                own.refuse_unused(file.path)
        if not cases:
            raise BundleError("no test case", path=bundle.path / "tests", hint="write one for each policy")
        shared.refuse_unused(bundle.path / "tests" / FIXTURES_FILE)
        extra = tuple(entity for entities in agents.values() for entity in entities)
        known = {(entity["uid"]["type"], entity["uid"]["id"]) for entity in bundle.entities}
        unique = {(entity["uid"]["type"], entity["uid"]["id"]): entity for entity in extra}
        added = tuple(entity for uid, entity in unique.items() if uid not in known)
        return cls(replace(bundle, entities=(*bundle.entities, *added)), named_apart(cases))


def case_files(directory: Path) -> Sequence[Path]:
    """Return the files of cases in a directory, by name.

    Raises:
        BundleError: It cannot be read, or there is none.
    """
    hint = "write one table of cases for each action there"
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise BundleError(f"no test cases can be read ({error.strerror})", path=directory, hint=hint) from None
    for entry in entries:
        if entry.suffix == ".yml":
            raise BundleError("only .yaml files are read", path=entry, hint="rename it")
    found = [entry for entry in entries if entry.suffix == ".yaml"]
    if not found:
        raise BundleError("no .yaml file of test cases", path=directory, hint=hint)
    return found
