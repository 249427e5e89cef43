"""Reports to give out in tests: one of each kind, and any by Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from cedarbox.review.finding import Check, Edit, Finding, Place, Report, Rule, Section, Suppression

__all__ = ["FULL", "REPORTS", "reports"]

FULL = Report(
    "lint",
    "policies/site",
    "1 error, 1 warning, 1 note",
    findings=[
        Finding(
            "S013",
            "error",
            "may reach 169.254.169.254",
            Place("policies/site/network.cedar", 3, 9, 3, 18),
            "net-mirror",
            hint="add a guard of context.ipClass",
            edits=(Edit("policies/site/network.cedar", 40, 49, "resource"),),
            details={"witness": {"port": 443}},
        ),
        Finding("S050", "warning", "has no @reason", Place("policies/site/a b:c.cedar", 7), "net-git"),
        Finding("S061", "note", "is the same as net-git", None, "net-too"),
        Finding("S061", "note", "old", None, "net-old", suppressed=Suppression("baseline")),
        Finding(
            "S061",
            "error",
            "known",
            Place("policies/site/network.cedar", 9),
            "net-known",
            suppressed=Suppression("inline", "a test host", Place("policies/site/network.cedar", 8)),
        ),
    ],
    checks=[
        Check("connect", "the mirror is permitted", "passed", seconds=0.125),
        Check(
            "connect", "nothing # else", "failed", "expected deny, got allow", Place("policies/site/tests/a.yaml", 4)
        ),
        Check("exec", "later", "skipped", "no guest"),
        Check("exec", "never /etc", "undecided", "time limit"),
    ],
    sections=[Section("Widened", ("1 of 4 environments",), ("who", "what"), (("agent", "connects to a.example:444"),))],
    notes=["the prover is not installed"],
    rules=[Rule("S013", "reaches-private-address", "error", "A permit reaches a private address", "# S013\n\nHelp.")],
    failed=True,
)
"""One that has all there is."""

REPORTS = {
    "full": FULL,
    "empty": Report("lint", "policies/site", "nothing found"),
    "undecided": Report("prove", "policies/site", "1 of 1 not decided", undecided=True),
    "failed without a word": Report("diff", "policies/site", "widens", failed=True),
    "warnings that fail": Report(
        "lint", "x", "1 warning", findings=[Finding("S002", "warning", "unscoped")], failed=True
    ),
    "warnings that do not": Report("lint", "x", "1 warning", findings=[Finding("S002", "warning", "unscoped")]),
}

_HOSTILE = st.sampled_from(
    [
        "::error::x",
        "\n::set-output name=a::b",
        "##[add-matcher]x",
        "%0A::error::y",
        "]]>",
        "-->",
        "<script>alert(1)</script>",
        "</code></td></table>\n\n# x",
        "|",
        "`",
        "@team",
        "#12",
        "[a](javascript:b)",
        "\x1b[31m",
        "\x00",
        "\ud800",
        "\udcff",
        "\u202e",
        "\u2028",
        "\ufffe",
        " # SKIP",
        " # TODO x",
        "\n...\nok 1",
        "Bail out!",
        "\\",
        "\r",
    ]
)
_TEXT = st.lists(st.one_of(_HOSTILE, st.text(max_size=8)), max_size=4).map("".join)
_NAMES = st.one_of(st.sampled_from(["a.cedar", "b/c.cedar"]), _TEXT.filter(bool))


@st.composite
def _places(draw: st.DrawFn) -> Place:
    line = draw(st.integers(1, 99))
    column = draw(st.none() | st.integers(1, 99))
    end = draw(st.none() | st.integers(line, 120))
    return Place(draw(_NAMES), line, column, end, None if end is None else draw(st.integers((column or 1) + 1, 200)))


_SUPPRESSIONS = st.none() | st.builds(
    Suppression, st.sampled_from(["inline", "baseline", "accepted"]), _TEXT, st.none() | _places()
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda of: st.lists(of, max_size=2) | st.dictionaries(_TEXT, of, max_size=2),
    max_leaves=4,
)
_FINDINGS = st.builds(
    Finding,
    _NAMES,
    st.sampled_from(["error", "warning", "note"]),
    _TEXT,
    st.none() | _places(),
    _TEXT,
    hint=_TEXT,
    edits=st.lists(st.builds(Edit, _NAMES, st.just(2), st.integers(2, 9), _TEXT), max_size=2).map(tuple),
    details=st.dictionaries(_TEXT, _JSON, max_size=2),
    suppressed=_SUPPRESSIONS,
)
_CHECKS = st.builds(
    Check,
    _TEXT,
    _TEXT,
    st.sampled_from(["passed", "failed", "skipped", "undecided"]),
    _TEXT,
    st.none() | _places(),
    st.floats(0, 1e6),
)
_SECTIONS = st.integers(0, 3).flatmap(
    lambda wide: st.builds(
        Section,
        _TEXT,
        st.lists(_TEXT, max_size=2).map(tuple),
        st.tuples(*[_TEXT] * wide),
        st.lists(st.tuples(*[_TEXT] * wide), max_size=2 if wide else 0).map(tuple),
    )
)

reports = st.builds(
    Report,
    st.sampled_from(["lint", "test", "review"]),
    _NAMES,
    _TEXT,
    findings=st.lists(_FINDINGS, max_size=4),
    checks=st.lists(_CHECKS, max_size=3),
    sections=st.lists(_SECTIONS, max_size=2),
    notes=st.lists(_TEXT, max_size=2),
    rules=st.lists(
        st.builds(Rule, _NAMES, _NAMES, st.just("error"), _TEXT, _TEXT), max_size=2, unique_by=lambda r: r.id
    ),
    failed=st.booleans(),
    undecided=st.booleans(),
)
"""Any reports, most of them with texts that try to be more than text."""
