"""Rules about how hosts, addresses, paths and accounts are written: S010, S011, S014."""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.canonical import Address, Host, canonical_host, canonical_path, canonical_user
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Fix, Hit, LintRule, NodePath
from cedarbox.review.lint.places import edit_of_text
from cedarbox.review.lint.suffixes import why_wide
from cedarbox.review.lint.walk import Node, attribute_chain
from cedarbox.review.subject import ReviewedPolicy

__all__ = ["RULES"]

_LONGEST_V4: Final = 8  # bits: half of all class A networks, and more than any one owner has
_LONGEST_V6: Final = 32  # bits: what a registry gives to one provider (RIPE-738 §5.1)
_HOSTS: Final[frozenset[tuple[str, ...]]] = frozenset({("resource", "fqdn"), ("context", "host", "fqdn")})
_PATHS: Final[frozenset[tuple[str, ...]]] = frozenset({("resource", "path"), ("context", "guestPath")})
_USERS: Final[frozenset[tuple[str, ...]]] = frozenset({("context", "user")})
_DOMAIN_ROOT: Final = "."


def _patterns(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        for node in context.nodes(policy):
            if node.operator == "like" and attribute_chain(node.given["left"]) in _HOSTS:
                yield from _pattern(context, policy, node)
        if policy.effect == "permit":
            for literal in context.literals(policy):
                wide = literal.kind == "Domain" and literal.sign >= 0 and _wide(context, literal.id)
                if wide:
                    message = f"permits everything below {literal.id}: {wide}"
                    yield Hit(message, policy, literal.path, key=f"domain {literal.id}")


def _wide(context: Context, name: str) -> str:
    if name in context.options.wide_domains or name == _DOMAIN_ROOT:
        return ""
    try:
        found = canonical_host(name)
    except CanonicalizationError:
        return ""
    return why_wide(found.name) if isinstance(found, Host) and found.name == name else ""


def _pattern(context: Context, policy: ReviewedPolicy, node: Node) -> Iterator[Hit]:
    pattern: Sequence[Any] = node.given["pattern"]
    text = shown_pattern(pattern)
    wild = [number for number, part in enumerate(pattern) if part == "Wildcard"]
    rest = "".join(part["Literal"] for part in pattern if part != "Wildcard")
    widens = node.sign >= 0 if policy.effect == "permit" else node.sign <= 0
    message, hint = "", ""
    if not wild:
        return
    if wild == [0] and rest.startswith(".") and len(rest) > 1:
        if wide := _wide(context, rest[1:]) if widens else "":
            message = f"the pattern {text!r} holds more than one owner's names: {wide}"
        elif not widens and policy.effect == "forbid" and not _names(context, policy, rest[1:]):
            message = f"the pattern {text!r} does not forbid {rest[1:]} itself"
            hint = f'write resource in Sandbox::Domain::"{rest[1:]}"'
            yield Hit(message, policy, node.path, hint=hint, severity="warning", key=f"apex {text}")
            return
    elif widens and not rest:
        message = "the pattern '*' matches every host"
    elif widens and wild == [0]:
        message = f"the pattern {text!r} matches names that end alike, such as evil{rest}"
        hint = f'write resource in Sandbox::Domain::"{rest}"'
    elif widens:
        example = "".join("x.evil.example" if part == "Wildcard" else part["Literal"] for part in pattern)
        message = f"the pattern {text!r} has a wildcard that is no leading label: it matches {example}"
        hint = 'name the hosts, or the domain above them with resource in Sandbox::Domain::"…"'
    if message:
        yield Hit(message, policy, node.path, hint=hint, key=text)


def _names(context: Context, policy: ReviewedPolicy, name: str) -> bool:
    if any(literal.kind in {"Host", "Domain"} and literal.id == name for literal in context.literals(policy)):
        return True
    return any(node.operator == "Value" and node.given == name for node in context.nodes(policy))


def shown_pattern(pattern: Sequence[Any]) -> str:
    """Return a pattern of ``like`` as it is written."""
    return "".join("*" if part == "Wildcard" else part["Literal"].replace("*", "\\*") for part in pattern)


def _spellings(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        for literal in context.literals(policy):
            wrong, better = _spelling(literal.kind, literal.id)
            if wrong:
                message = f'{literal.kind}::"{literal.id}" matches nothing: {wrong}'
                yield _misspelt(policy, literal.path, message, text=literal.id, better=better, kind=literal.kind)
        for path, kind, text in _compared(context, policy):
            wrong, better = _spelling(kind, text)
            if wrong:
                message = f'"{text}" equals nothing here: {wrong}'
                yield _misspelt(policy, path, message, text=text, better=better, kind="")
        for node in context.nodes(policy):
            if node.operator == "like" and attribute_chain(node.given["left"]) in _HOSTS:
                pattern = node.given["pattern"]
                rest = "".join(part["Literal"] for part in pattern if part != "Wildcard")
                if rest != rest.lower() or not rest.isascii() or rest.endswith("."):
                    text = shown_pattern(pattern)
                    message = (
                        f"the pattern {text!r} matches nothing: hosts are lower case, in A-labels, without a last dot"
                    )
                    yield Hit(message, policy, node.path, key=f"like {text}")


def _misspelt(policy: ReviewedPolicy, path: NodePath, message: str, *, text: str, better: str, kind: str) -> Hit:
    fix, hint = None, ""
    if better:
        hint = f"write {better!r}, if that is what is meant"
        edit = edit_of_text(policy, path, text, better)
        # What matched nothing matches something then, so decisions change.
        fix = Fix((edit,), safe=False) if edit else None
    return Hit(message, policy, path, hint=hint, fix=fix, key=f"{kind} {text}")


def _compared(context: Context, policy: ReviewedPolicy) -> Iterator[tuple[NodePath, str, str]]:
    kinds: dict[tuple[str, ...], str] = {}
    for chains, named in ((_HOSTS, "Host"), (_PATHS, "GuestPath"), (_USERS, "Account")):
        kinds |= dict.fromkeys(chains, named)
    for node in context.nodes(policy):
        if node.operator not in {"==", "!=", "contains"}:
            continue
        for side, other in (("left", "right"), ("right", "left")):
            kind = kinds.get(attribute_chain(node.given[side]), "")
            body = node.given[other]
            if not kind or not isinstance(body, Mapping):
                continue
            here = (*node.path, node.operator, other)
            if isinstance(body.get("Value"), str):
                yield here, kind, body["Value"]
            for number, member in enumerate(body.get("Set", ())):
                if isinstance(member.get("Value"), str):
                    yield (*here, "Set", number), kind, member["Value"]


def _spelling(kind: str, text: str) -> tuple[str, str]:  # noqa: PLR0911  # one return for each way to be wrong
    """Return what is wrong with the spelling of a literal, and the canonical one where there is one."""
    try:
        match kind:
            case "Host" | "Domain" | "Address":
                if kind == "Domain" and text == _DOMAIN_ROOT:
                    return "", ""
                if "*" in text:
                    return f'it is no pattern; Domain::"{text.removeprefix("*.")}" holds all below a name', ""
                found: Any = canonical_host(text)
                if isinstance(found, Address) is not (kind == "Address"):
                    return ("it is an address" if isinstance(found, Address) else "it is a name"), ""
            case "ModelEndpoint":
                found = text if text == "in-process" else canonical_host(text)
            case "HostPath" | "GuestPath":
                found = canonical_path(text)
            case "Account":
                found = canonical_user(text)
            case _:
                return "", ""
    except CanonicalizationError as error:
        return f"it has no canonical form ({error.message})", ""
    if str(found) == text:
        return "", ""
    mixed = _scripts(text)
    if len(mixed) > 1:
        return f"it mixes the scripts {' and '.join(sorted(mixed))}, so it is not the name it looks like", ""
    return "it is not in canonical form", str(found)


def _scripts(text: str) -> set[str]:
    return {unicodedata.name(char, "UNKNOWN").split()[0] for char in text if char.isalpha()}


def _networks(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        for node in context.nodes(policy):
            if node.operator != "ip" or not isinstance(node.given[0].get("Value"), str):
                continue
            text = node.given[0]["Value"]
            try:
                interface = ipaddress.ip_interface(text)
            except ValueError:
                continue
            network = interface.network
            here = (*node.path, "ip", 0)
            if "/" in text and interface.ip != network.network_address:
                edit = edit_of_text(policy, here, text, str(network))
                # Cedar looks at the prefix only, so the network is the same one.
                safe = _only_in_range(context, policy, node.path)
                yield Hit(
                    f"{text} has bits set behind its prefix: it is the network {network}",
                    policy,
                    here,
                    hint=f"write {network}, or the address without a prefix",
                    fix=Fix((edit,), safe=safe) if edit else None,
                    key=f"bits {text}",
                )
            longest = _LONGEST_V4 if network.version == 4 else _LONGEST_V6
            if policy.effect == "permit" and network.prefixlen < longest:
                message = f"permits by the network {network}, which is wider than /{longest}"
                yield Hit(message, policy, here, hint="name the networks of the site", key=f"wide {network}")


def _only_in_range(context: Context, policy: ReviewedPolicy, path: NodePath) -> bool:
    by_path = {node.path: node.operator for node in context.nodes(policy)}
    return path[-2:] == ("isInRange", 1) and by_path.get(path[:-2]) == "isInRange"


RULES: Final = (
    LintRule(
        "S010",
        "wide-host-pattern",
        "error",
        "A host pattern or domain that holds hosts of others",
        "name the hosts, or a domain that is yours",
        "text",
        _patterns,
    ),
    LintRule(
        "S011",
        "literal-not-canonical",
        "error",
        "A host, address, path or account that is not spelt in the canonical form",
        "write the canonical form, see --explain S011",
        "text",
        _spellings,
    ),
    LintRule(
        "S014",
        "wide-network",
        "warning",
        "A network wider than /8 (IPv4) or /32 (IPv6) in a permit, or with bits set behind its prefix",
        "name the networks of the site",
        "text",
        _networks,
    ),
)
"""The rules."""
