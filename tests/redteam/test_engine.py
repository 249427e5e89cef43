"""Attacks on the policy engine: whatever it cannot decide is a denial, and what would crash it is never given to it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from tests.unit.bundles import PERMIT_ALL, agents, engine, write_bundle
from tests.unit.guarded import Guarded

from cedarbox.audit import Record
from cedarbox.errors import BundleError, CanonicalizationError, PolicyDenied
from cedarbox.guard.question import Question
from cedarbox.policy import PolicyBundle, PolicyEngine, actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Host, canonical_host
from cedarbox.policy.entities import Base, Entity, host_entity

BASE = Base(datetime(2026, 11, 23, tzinfo=UTC), "boxlite")


def _connect(host: str = "a.example") -> Action:
    return actions.connect(BASE, canonical_host(host), port=443, proto="tls", assumed_class="public")


def _changed(action: Action, **context: Any) -> Action:
    return Action(action.name, action.resource, {**action.context, **context}, action.summary, action.others)


async def _refused(guarded: Guarded, action: Action, said: str) -> Record:
    """Put an action to the real gate; return the record of its denial."""
    with pytest.raises(PolicyDenied, match=said):
        await guarded.client.gate.ask(Question("attack", lambda _: action, "attack"))
    return guarded.records("decision")[-1]


async def test_erroring_forbid_does_not_open(tmp_path: Path) -> None:
    """A forbid overflows when it is evaluated, so that Cedar skips it and says Allow.

    It is denied; the record of the decision holds the overflow in its errors and no policy.
    """
    overflow = (
        '@id("no") forbid (principal, action == Sandbox::Action::"connect", resource) '
        "when { context.port * 9223372036854775807 > 0 };"
    )
    record = await _refused(Guarded(tmp_path, PERMIT_ALL + overflow), _connect(), "could not be evaluated")
    assert record.entry.decision == "deny"
    assert any("overflow" in error for error in record.entry.errors)


async def test_attribute_of_an_undeclared_entity(tmp_path: Path) -> None:
    """A forbid reads an attribute of the secret's host, and the request leaves that entity out.

    Cedar skips the forbid and says Allow; here it is denied, and the record says which entity is missing.
    """
    rule = (
        '@id("no") forbid (principal, action == Sandbox::Action::"useSecret", resource) '
        'when { context.host.fqdn == "evil.example" };'
    )
    whole = actions.use_secret(BASE, name="token", host=Host("evil.example"), port=443)
    without = Action(whole.name, whole.resource, whole.context, whole.summary)
    record = await _refused(Guarded(tmp_path, PERMIT_ALL + rule), without, "could not be evaluated")
    assert any("evil.example" in error for error in record.entry.errors)


async def test_undeclared_principal(tmp_path: Path) -> None:
    """An agent that entities.json does not declare asks, under a bundle that permits everything to everybody.

    It is denied before Cedar is asked; the record says that the agent is not declared.
    """
    guarded = Guarded(tmp_path)
    guarded.client.gate.principal = "stranger"
    record = await _refused(guarded, _connect(), "not declared")
    assert record.entry.principal == "stranger"


@pytest.mark.parametrize(
    "scope",
    ['action == Sandbox::Action::"obliterate"', 'action in [Sandbox::Action::"exec", Sandbox::Action::"x"]'],
)
def test_policy_for_an_unknown_action(tmp_path: Path, scope: str) -> None:
    """A policy names an action that the schema does not have, so that it could never hold.

    The bundle is refused with file and line; nothing runs, so there is no record.
    """
    with pytest.raises(BundleError, match=r"policies\.cedar:2: unknown action"):
        PolicyBundle.load(write_bundle(tmp_path, f"\nforbid (principal, {scope}, resource);"))


def _confused(kind: str) -> Action:
    made = _connect()
    return Action(made.name, Entity(kind, "a.example", {"path": "a.example"}), made.context)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action("obliterate", Entity("Host", "a.example"), _connect().context), "unknown action"),
        (_confused("HostPath"), "could not be evaluated|engine failed"),
        (_confused("Backend"), "could not be evaluated|engine failed"),
        (_confused("NoSuchType"), "could not be evaluated|engine failed"),
        (_changed(_connect(), surprise=1), "could not be evaluated"),
        (_changed(_connect(), port="443"), "could not be evaluated"),
        (_changed(_connect(), port=443.0), "could not be evaluated"),
        (_changed(_connect(), port=2**63), "could not be evaluated"),
        (_changed(_connect(), port=None), "could not be evaluated"),
        (_changed(_connect(), ip={"__extn": {"fn": "ip", "arg": "0x7f.1"}}), "could not be evaluated"),
        (_changed(_connect(), ip={"__extn": {"fn": "unknown", "arg": "ip"}}), "could not be evaluated"),
        (_changed(_connect(), proto=Entity("Proto", "quic").ref), "could not be evaluated"),
        (Action("connect", host_entity(Host("a.example")), {"base": BASE.to_json()}), "could not be evaluated"),
        (Action("connect", host_entity(Host("a.example")), {}), "could not be evaluated"),
        (Action("connect", Entity("Host", "a.example"), _connect().context), "engine failed"),
        (_changed(_connect(), base="\udcff"), "could not be evaluated|engine failed"),
        (_changed(_connect(), base=object()), "engine failed"),
    ],
    ids=range(17),
)
async def test_request_that_does_not_fit_the_schema(tmp_path: Path, action: Action, said: str) -> None:
    """A request of a confused type, with an attribute too many, too few or of another type, under a permit of all.

    It is denied, never an exception; the record has the engine's own words in its errors.
    """
    record = await _refused(Guarded(tmp_path), action, said)
    assert record.entry.decision == "deny"
    assert record.entry.errors


@pytest.mark.parametrize(
    "resource",
    [
        Entity("Agent", "agent"),
        Entity("Agent", "admin", {"trust": Entity("Trust", "trusted").ref, "tenant": Entity("Tenant", "site").ref}),
        Entity("AgentGroup", "agents"),
        Entity("AgentGroup", "agents", {}, (Entity("AgentGroup", "admins"),)),
        Entity("Tenant", "site"),
        Entity("Host", "a.example", {"fqdn": "a.example"}, (Entity("AgentGroup", "admins"),)),
    ],
    ids=["the agent", "another agent", "a group", "a group in a group", "a tenant", "a group as parent"],
)
@pytest.mark.parametrize("aside", [False, True])
async def test_resource_that_is_a_principal(tmp_path: Path, resource: Entity, aside: bool) -> None:
    """A request brings an entity along that only entities.json declares, as its resource or beside it.

    It could lend the agent a group or a trust; it is denied before Cedar is asked, and the record says so.
    """
    made = _connect()
    action = (
        Action(made.name, made.resource, made.context, others=(resource,))
        if aside
        else Action(made.name, resource, made.context)
    )
    record = await _refused(Guarded(tmp_path), action, "bring a principal")
    assert record.entry.decision == "deny"


class _Panic(BaseException):
    """As pyo3_runtime.PanicException: derived from BaseException alone."""


async def test_panic_in_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine panics: what PyO3 raises then passes every `except Exception`.

    Only the raise is simulated (no input that makes cedarpy 4.12.2 panic is known). It is a denial with a record.
    """
    guarded = Guarded(tmp_path)

    def panic(*_: object) -> None:
        raise _Panic("index out of bounds")

    monkeypatch.setattr(cedarpy, "is_authorized", panic)
    record = await _refused(guarded, _connect(), "engine failed: _Panic")
    assert "index out of bounds" in record.entry.errors[0]


async def test_answer_that_the_engine_cannot_explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cedar says Allow because of a policy that the bundle does not have.

    It is a denial with a record, not an exception.
    """
    guarded = Guarded(tmp_path)
    foreign = cedarpy.PolicySet.from_json_str(cedarpy.policies_to_json_str(PERMIT_ALL))
    monkeypatch.setitem(guarded.client.gate.engine._sets, "connect", foreign)
    record = await _refused(guarded, _connect(), "engine failed: KeyError")
    assert record.entry.policies == ()


# --- Bundles that would crash the parser or hold the process up.


def _when(condition: str) -> str:
    return f'permit (principal, action == Sandbox::Action::"connect", resource) when {{ {condition} }};'


CRASHERS: Mapping[str, tuple[str, str]] = {
    "brackets": (_when("(" * 20_000 + "true" + ")" * 20_000), "deep"),
    "sets in sets": (_when("[" * 20_000 + "1" + "]" * 20_000 + " == 1"), "deep"),
    "records in records": (_when("{a:" * 20_000 + "1" + "}" * 20_000 + " == 1"), "deep"),
    "calls in calls": (_when("ip(" * 20_000 + '"1.1.1.1"' + ")" * 20_000 + ".isLoopback()"), "deep"),
    "conditionals": (_when("if true then " * 9_000 + "true" + " else true" * 9_000), "deep"),
    "else conditionals": (_when("if true then true else " * 9_000 + "true"), "deep"),
    "attributes": (_when("context" + ".a" * 20_000 + " == 1"), "chain"),
    "attributes with spaces and comments": (_when("context" + " .\n // x\n a" * 20_000 + " == 1"), "chain"),
    "has": (_when("context has a" + ".a" * 20_000), "chain"),
    "has, of a size that takes all memory": (_when("context has a" + ".a" * 1_000), "chain"),
    "indexes": (_when("context" + '["a"]' * 20_000 + " == 1"), "chain"),
    "calls": (_when("context.ip" + ".isLoopback()" * 20_000), "chain"),
    "calls with arguments": (_when("context.ip" + ".f(1, 2 == 3)" * 20_000), "chain"),
    "negations": (_when("!" * 20_000 + "true"), "chain"),
    "minus signs": (_when("-" * 20_000 + "1 == 1"), "chain"),
    "and": (_when(" && ".join(["true"] * 20_000)), "operators"),
    "or": (_when(" || ".join(["true"] * 20_000)), "operators"),
    "sums": (_when("+".join(["1"] * 20_000) + " == 1"), "operators"),
    "products": (_when("*".join(["1"] * 20_000) + " == 1"), "operators"),
    "clauses": ("permit (principal, action, resource) " + "when { true }" * 9_000 + ";", "operators"),
    "and, that only the engine cannot take": (_when(" && ".join(["true"] * 100)), "nested too deeply"),
    "and, that the reader of JSON cannot take": (_when(" && ".join(["true"] * 900)), "nested too deeply"),
    "has, that only the engine cannot take": (_when("context has a" + ".a" * 60), "nested too deeply"),
    "brackets behind a string that looks like a comment": (
        _when('"\n//" == "x" && ' + "(" * 20_000 + "true" + ")" * 20_000),
        "deep",
    ),
    "brackets behind an escaped quote": (_when('"\\"//" == "x" && ' + "(" * 20_000 + "true" + ")" * 20_000), "deep"),
    "a long text": (_when('context.base.backend == "' + "a" * 1_000_000 + '"'), "characters"),
    "a long pattern": (_when('context.base.backend like "' + "*a" * 500_000 + '"'), "characters"),
    "a long set": (_when("[" + ",".join(["1"] * 500_000) + "].contains(context.port)"), "characters"),
    "a long list of actions": (
        "permit (principal, action in [" + ",".join(['Sandbox::Action::"exec"'] * 80_000) + "], resource);",
        "characters",
    ),
    "a text without its end": (_when('"' + '\\"' * 500_000), "characters"),
}


_LOADER = """
import sys
from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle, PolicyEngine
for path in sys.argv[1:]:
    try:
        PolicyEngine(PolicyBundle.load(path))
    except BundleError as error:
        print(error, flush=True)
    else:
        print("loaded", flush=True)
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What the loader says of each crasher, in a process that may die of one; those after it are missing then."""
    place = tmp_path_factory.mktemp("crashers")
    bundles = [
        str(write_bundle(place / str(number), f"// first\n{policy}"))
        for number, (policy, _) in enumerate(CRASHERS.values())
    ]
    done = subprocess.run([sys.executable, "-P", "-c", _LOADER, *bundles], capture_output=True, text=True, check=False)
    said = dict(zip(CRASHERS, done.stdout.splitlines(), strict=False))
    return {attack: said.get(attack, f"died, code {done.returncode}: {done.stderr[-300:]}") for attack in CRASHERS}


@pytest.mark.parametrize("attack", CRASHERS)
def test_policy_that_crashes_the_parser(refusals: Mapping[str, str], attack: str) -> None:
    """A policy that ends the process with a segmentation fault, or takes its memory or minutes of it.

    It is loaded in a process of its own, which must live: the bundle is refused with file and line. Nothing runs, so
    there is no record.
    """
    place, _, message = refusals[attack].partition("policies.cedar:2")
    assert place, refusals[attack]
    assert CRASHERS[attack][1] in message, refusals[attack]


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([[str(number + 1)] for number in range(900)], "nested more than"),
        ([["1"], ["0"]], "nested more than"),
        ([["0"]], "nested more than"),
        ([[] for _ in range(1_001)], "agent groups"),
    ],
    ids=["a chain", "a circle", "a group in itself", "many"],
)
def test_hierarchy_that_holds_the_engine_up(tmp_path: Path, groups: list[list[str]], said: str) -> None:
    """Groups in groups, of which cedarpy reckons all ancestors: a chain of 4,000 takes 15 seconds.

    The bundle is refused; nothing runs, so there is no record.
    """
    kind = "Sandbox::AgentGroup"
    entities = [
        {"uid": {"type": kind, "id": str(number)}, "attrs": {}, "parents": [{"type": kind, "id": i} for i in above]}
        for number, above in enumerate(groups)
    ]
    with pytest.raises(BundleError, match=f"entities.json: .*{said}"):
        PolicyBundle.load(write_bundle(tmp_path, PERMIT_ALL, entities=json.dumps(entities)))


@pytest.mark.parametrize(
    ("entities", "said"),
    [
        (json.dumps([{"uid": {"type": "Sandbox::Tenant", "id": str(n)}, "attrs": {}} for n in range(10_001)]), "more"),
        (
            '[{"uid":{"type":"Sandbox::Tenant","id":"x"},"attrs":{"a":' + "[" * 500 + "]" * 500 + '},"parents":[]}]',
            "fit",
        ),
        ('[{"uid":{"type":"Sandbox::Tenant","id":"x"},"attrs":' + '{"a":' * 9000 + "1" + "}" * 9000 + "}]", "JSON"),
    ],
    ids=["many", "deep", "deeper"],
)
def test_entities_that_exhaust_the_reader(tmp_path: Path, entities: str, said: str) -> None:
    """Entities that are too many, or nested so deeply that a reader of JSON runs out of stack.

    The bundle is refused with one line; nothing runs, so there is no record.
    """
    with pytest.raises(BundleError, match=said):
        PolicyBundle.load(write_bundle(tmp_path, PERMIT_ALL, entities=entities))


def test_more_policies_than_a_decision_can_bear(tmp_path: Path) -> None:
    """Cedar looks at each policy of an action in turn, so a hundred thousand of them would stall every decision.

    The bundle is refused at the first policy that is too many, with file and line.
    """
    with pytest.raises(BundleError, match=r"policies\.cedar:10001: more than 10000 policies"):
        PolicyBundle.load(write_bundle(tmp_path, "permit(principal,action,resource);\n" * 10_002))


# --- Requests of a size, at a time, or from a side that nobody planned for.


def _huge() -> Mapping[str, Any]:
    return {
        "path": lambda: actions.touch_file(BASE, path="/" + "a" * 1_000_000, operation="read"),
        "deep path": lambda: actions.touch_file(BASE, path="/a" * 500_000, operation="read"),
        "host": lambda: _connect(".".join(["a"] * 10_000)),
        "host of one label": lambda: _connect("a" * 1_000_000),
        "host in Unicode": lambda: _connect("\u00e9" * 1_000_000),
        "address": lambda: _connect("[" + ":" * 1_000_000 + "]"),
        "user": lambda: actions.execute(BASE, command=["id"], shell=False, user="a" * 100_000, summary=""),
    }


@pytest.mark.parametrize("what", _huge())
async def test_request_of_a_huge_size(tmp_path: Path, what: str) -> None:
    """A path of a megabyte, a host of ten thousand labels: megabytes of ancestors for the engine to reckon with.

    It has no canonical form, so it is denied before the engine sees it; the record holds a short reason.
    """
    guarded = Guarded(tmp_path)
    with pytest.raises(PolicyDenied):
        await guarded.client.gate.ask(Question("attack", lambda _: _huge()[what](), what))
    (record,) = guarded.records("decision")
    assert record.entry.decision == "deny"
    assert len(record.entry.errors[0]) < 500
    with pytest.raises(CanonicalizationError):
        _huge()[what]()


async def test_pattern_that_backtracks(tmp_path: Path) -> None:
    """A pattern of a thousand stars against a command line of a hundred thousand letters that almost fits.

    Cedar's matching is linear in both (measured), so nothing is bounded: the decision comes, and its record.
    """
    rule = f'@id("stars") forbid (principal, action, resource) when {{ context.commandLine like "{"*a" * 1_000}*b" }};'
    rule = rule.replace("action,", 'action == Sandbox::Action::"exec",')
    guarded = Guarded(tmp_path, PERMIT_ALL + rule)
    action = actions.execute(BASE, command=["a" * 100_000], shell=True, user=None, summary="a")
    assert (await guarded.client.gate.ask(Question("attack", lambda _: action))).policies == ("all",)
    hit = actions.execute(BASE, command=["a" * 100_000 + "b"], shell=True, user=None, summary="a")
    record = await _refused(guarded, hit, "stars")
    assert record.entry.policies == ("stars",)


async def test_cancelled_while_the_decision_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task is cancelled after the engine said Allow and before that is on disk.

    The act does not happen, and the ledger says so: an outcome ``cancelled`` that was not begun.
    """
    guarded = Guarded(tmp_path)
    gate, reached, acted = guarded.client.gate, asyncio.Event(), False
    recording = gate.ledger.record

    async def slow(entry: Any) -> Record:
        reached.set()
        await asyncio.sleep(3600)
        return await recording(entry)

    monkeypatch.setattr(gate.ledger, "record", slow)

    async def attack() -> None:
        nonlocal acted
        async with gate.operation(Question("attack", lambda _: _connect())):
            acted = True

    task = asyncio.create_task(attack())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not acted
    gate.ledger.checkpoint()  # waits until what was noted is on disk
    (outcome,) = guarded.records("outcome")
    assert (outcome.entry.outcome, outcome.entry.attrs["begun"]) == ("cancelled", False)


def test_many_threads_decide_at_once(tmp_path: Path) -> None:
    """Eight threads ask one engine for a permitted and a forbidden host in turn, all at the same time.

    Each gets the answer to its own question.
    """
    rule = '@id("no") forbid (principal, action, resource in Sandbox::Domain::"evil.example");'
    deciding, together = engine(tmp_path, PERMIT_ALL + rule), threading.Barrier(8)

    def ask(number: int) -> list[bool]:
        together.wait()
        names = [f"h{number}.{'evil' if turn % 2 else 'good'}.example" for turn in range(100)]
        return [deciding.decide("agent", _connect(name)).allowed for name in names]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [[True, False] * 50] * 8


async def test_a_second_agent_does_not_lend_its_groups(tmp_path: Path) -> None:
    """A bundle declares two agents; a request of the weak one carries the name of the strong one as SDK agent.

    The name in the context is no principal: it is denied, and the record names the principal that asked.
    """
    entities = json.loads(agents("agent", "strong"))
    admins = {"uid": {"type": "Sandbox::AgentGroup", "id": "admins"}, "attrs": {}, "parents": []}
    entities[-1]["parents"] = [admins["uid"]]
    guarded = Guarded(tmp_path, 'permit (principal in Sandbox::AgentGroup::"admins", action, resource);')
    bundle = write_bundle(
        tmp_path / "two",
        'permit (principal in Sandbox::AgentGroup::"admins", action, resource);',
        entities=json.dumps([*entities, admins]),
    )
    guarded.client.gate.engine = PolicyEngine(PolicyBundle.load(bundle))
    base = Base(BASE.at, "boxlite", agent="strong")
    action = actions.connect(base, Host("a.example"), port=443, proto="tls", assumed_class="public")
    record = await _refused(guarded, action, "no policy permits it")
    assert record.entry.principal == "agent"
    assert guarded.client.gate.engine.decide("strong", action).allowed
