"""What ``policy check`` can find."""

from __future__ import annotations

from typing import Final

from cedarbox.review.finding import Finding, Place, Rule

__all__ = ["RULES", "finding"]

_ALL: Final = (
    Rule(
        "C001",
        "unreadable-file",
        "error",
        "A file cannot be read",
        "The file is no plain file, too large, not UTF-8, or may not be read. Nothing of it can be checked, so nothing "
        "that depends on it is known to be good.\n\nSave it as UTF-8 text, and check its owner and mode.",
    ),
    Rule(
        "C002",
        "not-cedar",
        "error",
        "A statement is not Cedar",
        "Cedar's parser refuses the statement. The place is the first token that does not fit.\n\n"
        "Bad: `permit (principal, action, resource) when { context.port = 443 };`\n\n"
        "Good: `permit (principal, action, resource) when { context.port == 443 };`\n\nThe other "
        "statements are checked "
        "all the same.",
    ),
    Rule(
        "C003",
        "does-not-fit-schema",
        "error",
        "A policy does not fit the schema",
        "Cedar's validator refuses the policy: it names a type, action or attribute that is not declared, compares "
        "values of two types, or reads an optional attribute without asking for it first. Such a policy "
        "may fail while it is "
        "evaluated, and Cedar skips a policy that fails, a `forbid` too.\n\n"
        "Bad: `when { context.ip.isLoopback() }`\n\nGood: `when { context has ip && context.ip.isLoopback() }`",
    ),
    Rule(
        "C004",
        "duplicate-id",
        "error",
        "Two policies have one id",
        "Records, tests and approvals name a policy by its `@id`. With two of one id nobody can tell which one decided."
        "\n\nGive each policy an id of its own.",
    ),
    Rule(
        "C005",
        "not-for-a-bundle",
        "error",
        "A policy has what a bundle may not have",
        "Templates, unknown actions and approvals that could not be held to are refused when the bundle is loaded.",
    ),
    Rule(
        "C006",
        "bad-entities",
        "error",
        "The entities cannot be used",
        "The file is not JSON, an entity does not fit the schema, or it is there twice. A bundle whose entities cannot "
        "be read is refused as a whole.",
    ),
    Rule(
        "C007",
        "bad-metadata",
        "error",
        "The metadata of the bundle cannot be used",
        "`bundle.toml` is missing, is not TOML, or has a key or value that cedarbox does not know.\n\n"
        'At least it has: `name = "…"` and `schema = 1`.',
    ),
    Rule(
        "C008",
        "bad-tests",
        "error",
        "A file of test cases cannot be used",
        "A test that is not run shows nothing. The files are `tests/*.yaml`.",
    ),
    Rule(
        "C009",
        "bad-schema",
        "error",
        "The schema cannot be used",
        "It is neither Cedar's own syntax nor its JSON form, names what it does not declare, or none was found. "
        "Policies were not checked against it.",
    ),
    Rule(
        "C010",
        "impossible-policy",
        "warning",
        "A policy matches no request at all",
        "By the types alone the policy is false for every request that the schema knows: `resource is Host && "
        "resource is Address`, entities of two types compared, `has` of an attribute that is never "
        "there. An impossible "
        "`forbid` protects nothing.\n\nThe place is the first part that cannot hold together with what "
        "is before it. Values are "
        "not looked at: `port == 80 && port == 443` is for `policy lint` with the prover.",
    ),
    Rule(
        "C011",
        "bidirectional-text",
        "warning",
        "Text turns the direction of writing",
        "A character such as U+202E makes an editor show text in another order than Cedar reads it, so a reviewer sees "
        "another policy than the one that decides, in a comment as well.\n\nRemove the character.",
    ),
    Rule(
        "C012",
        "mixed-scripts",
        "warning",
        "Text mixes scripts that look alike",
        "A letter of another script looks like one that is meant: the Cyrillic U+0430 is not the Latin `a`. The policy "
        "is then about another host, path or attribute than it seems.\n\nWrite the text anew; write a "
        "name of the internet that has "
        "such letters as it is sent, `xn--…`.",
    ),
    Rule(
        "C013",
        "odd-character",
        "warning",
        "An id or a name has a character that does not belong into one",
        "Invisible and unusual characters, such as U+200B, make two different ids look the same.\n\nRemove the "
        "character.",
    ),
    Rule(
        "C014",
        "bad-links",
        "error",
        "A template link cannot be used",
        "It links a template that is not there, leaves a slot open, or has an id that is taken.",
    ),
)

RULES: Final = {rule.id: rule for rule in _ALL}
"""The rules by their ids."""


def finding(
    rule: str, message: str, place: Place | None, *, policy: str = "", hint: str = "", key: str = ""
) -> Finding:
    """Make a finding with the severity of its rule."""
    return Finding(rule, RULES[rule].severity, message, place, policy=policy, hint=hint, key=key)
