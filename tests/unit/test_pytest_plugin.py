"""The plugin for pytest: collects the cases of bundles when it is told to, and does nothing else to anybody's run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED
from tests.unit.suites import write_suite

pytest_plugins = ["pytester"]

SOURCE = Path(__file__).parents[2]
WEB = (
    '@id("web") permit (principal in Sandbox::AgentGroup::"agents", action == Sandbox::Action::"connect", '
    'resource in Sandbox::Domain::"corp.example");\n'
)
CASES = (
    "agents: {outsider: {}}\nconnect:\n  defaults: {principal: agent, port: 443, proto: tls}\n"
    "  allow:\n    - {case: inside, target: a.corp.example, by: web}\n"
    '  deny:\n    - {case: outside, target: [b.example, "[fd00::1]"]}\n'
    "    - {case: who, target: a.corp.example, principal: outsider}\n"
)
# Of all that the environment of these tests has, only what they are about.
QUIET = [part for name in ("asyncio", "anyio", "timeout", "hypothesispytest") for part in ("-p", f"no:{name}")]
INI = "[pytest]\nfilterwarnings = error\naddopts = -ra --strict-markers --strict-config -p no:cacheprovider\n"


class Site:
    """A directory with tests, where pytest is run as by somebody who has cedarbox installed."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.directory, self._pytester = pytester.path, pytester
        self.configure("")

    def configure(self, lines: str) -> None:
        (self.directory / "pytest.ini").write_text(INI + lines)

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(textwrap.dedent(text))

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run pytest in this process and return its exit code and output."""
        done = self._pytester.runpytest_inprocess(*QUIET, *arguments)
        out = f"{done.stdout.str()}\n{done.stderr.str()}"
        assert "INTERNALERROR" not in out, out
        return int(done.ret), out

    def run_apart(self, *arguments: str) -> tuple[int, str]:
        """Run pytest in a process of its own, which finds the plugin by its entry point, as an installation has it."""
        information = self.directory / "site" / "cedarbox-0.dist-info"
        information.mkdir(parents=True, exist_ok=True)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: cedarbox\nVersion: 0\n")
        entries = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
        lines = [f"{name} = {module}\n" for name, module in entries.items()]
        (information / "entry_points.txt").write_text("".join(["[pytest11]\n", *lines]))
        path = os.pathsep.join(map(str, (self.directory / "site", SOURCE / "src")))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTEST_ADDOPTS", None)
        command = [sys.executable, "-P", "-m", "pytest", *QUIET, *arguments]
        done = subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert "INTERNALERROR" not in done.stdout + done.stderr, done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def site(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    made = Site(pytester)
    write_suite(made.directory / "policies" / "web", WEB, CASES)
    return made


def test_a_run_that_does_not_ask_for_it_imports_nothing_of_cedarbox(site: Site) -> None:
    site.write(
        "test_own.py",
        """
        import sys

        def test_nothing(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("cedarbox")
            loaded = {name.split(".")[0] for name in sys.modules}
            assert "cedarbox_pytest" in loaded
            assert not {"cedarbox", "cedarpy", "yaml", "agents"} & loaded
            assert all(type(finder).__module__.split(".")[0] != "cedarbox" for finder in sys.meta_path)
        """,
    )
    assert site.run_apart("-q")[0] == 0
    # Nor does it collect anything, even where it is pointed at a bundle.
    code, out = site.run("-q", "policies")
    assert (code, "no tests ran" in out) == (5, True)


def test_each_case_of_the_configured_bundles_is_an_item_with_a_name_to_choose_it_by(site: Site) -> None:
    site.configure("cedarbox_bundles = policies/*\n")
    code, out = site.run("-v")
    assert code == 0
    assert "policies/web/tests/0.yaml::connect[allow inside] PASSED" in out
    assert "policies/web/tests/0.yaml::connect[deny outside, target [fd00::1]] PASSED" in out
    assert "4 passed" in out
    for arguments, passed in (
        (["policies/web/tests/0.yaml::connect[deny outside, target [fd00::1]]"], "1 passed"),
        (["-k", "inside"], "1 passed"),
        (["-k", "connect and not who"], "3 passed"),
        (["-k", "outsider"], "1 passed"),
        (["-m", "policy_case"], "4 passed"),
        (["-m", "not policy_case"], "4 deselected"),
    ):
        assert passed in site.run(*arguments)[1], arguments


def test_a_bundle_that_is_named_on_the_command_line_is_run_with_the_rest(site: Site) -> None:
    site.write("test_own.py", "def test_own(): pass\n")
    assert "5 passed" in site.run("--cedarbox-bundle", "policies/web")[1]
    assert "5 passed" in site.run("--cedarbox-bundle", "policies/web", "test_own.py")[1]
    site.configure("cedarbox_bundles = policies/web\n")
    assert "5 passed" in site.run()[1]
    # Who names what to run gets that.
    assert "1 passed" in site.run("test_own.py")[1]


def test_workers_of_xdist_run_the_same_items(site: Site) -> None:
    site.configure("cedarbox_bundles = policies/*\n")
    code, out = site.run_apart("-n", "2")
    assert (code, "4 passed" in out) == (0, True), out


def test_a_case_that_fails_is_one_line_with_its_place_and_no_traceback(site: Site) -> None:
    site.configure("cedarbox_bundles = policies/*\n")
    write_suite(site.directory / "policies" / "web", WEB, CASES.replace("b.example", "b.corp.example"))
    code, out = site.run()
    assert code == 1
    place = "policies/web/tests/0.yaml:7: connect: outside, target b.corp.example: "
    assert f"\n{place}expected deny by no policy, got allow by web\n" in out
    assert "Traceback" not in out
    assert "pytest_plugin.py" not in out


def test_a_bundle_that_cannot_be_used_is_one_clear_line(site: Site) -> None:
    site.configure("cedarbox_bundles = policies/*\n")
    bundle = site.directory / "policies" / "web"
    for name, text, said in (
        ("tests/0.yaml", "connect: !!python/object/apply:os.system ['touch hacked']\n", "0.yaml:1:10: the tag"),
        ("tests/0.yaml", "a: &a [x]\nb: [*a, *a]\n", "0.yaml:1:4: an anchor or alias"),
        ("tests/0.yaml", "[" * 50_000, "nested more than"),
        ("tests/0.yaml", "\x1b[2Jconnect: {}\n", "0.yaml"),
        ("policies.cedar", "permit (", "policies.cedar:1"),
    ):
        write_suite(bundle, WEB, CASES)
        (bundle / name).write_text(text)
        code, out = site.run("--color=no")
        assert code == 2
        assert said in out
        assert "1 error" in out
        assert "Traceback" not in out
        assert "\x1b" not in out
    assert not (site.directory / "hacked").exists()


def test_what_is_no_bundle_is_a_mistake_of_usage(site: Site) -> None:
    code, out = site.run("--cedarbox-bundle", "nowhere")
    assert code == 4
    assert "ERROR: --cedarbox-bundle: 'nowhere' names no policy bundle; a bundle has a bundle.toml\n" in out
    site.configure("cedarbox_bundles = nowhere/*\n")
    assert site.run()[0] == 4


def test_a_bundle_does_not_drop_out_of_a_run_without_a_word(site: Site) -> None:
    site.configure("cedarbox_bundles = policies/*\n")
    write_suite(site.directory / "policies" / "other", WEB, CASES)
    assert site.run()[0] == 0
    bundle = site.directory / "policies" / "web"
    (bundle / "bundle.toml").rename(bundle / "bundle.tom")
    code, out = site.run()
    assert (code, "ERROR: cedarbox_bundles: policies/web names no policy bundle" in out) == (4, True)
    (bundle / "bundle.tom").rename(bundle / "bundle.toml")
    for path in (bundle / "tests").iterdir():
        path.rename(path.with_suffix(".yml"))
    code, out = site.run()
    assert (code, "ERROR: policies/web/tests: no .yaml file of test cases" in out) == (4, True)


def test_a_fixture_tells_what_is_wrong_in_one_line(site: Site) -> None:
    site.configure("cedarbox_bundles = policies/*\n")
    site.write("test_own.py", "def test_it(decide):\n    pass\n")
    (site.directory / "policies" / "web" / "policies.cedar").write_text("permit (")
    code, out = site.run("test_own.py")
    assert (code, "policies.cedar:1" in out) == (1, True)
    assert "pytest_plugin.py" not in out


def test_fixtures_ask_a_bundle_in_the_words_of_a_case(site: Site) -> None:
    shutil.copytree(SHIPPED / "internal-mirror", site.directory / "mirror")
    site.configure("cedarbox_bundles = policies/*\n")
    site.write(
        "test_own.py",
        """
        from pathlib import Path

        import pytest

        from cedarbox.policy import actions
        from cedarbox.review.arguments import build

        def test_the_bundle_that_is_configured(decide, policy_bundle, policy_engine):
            answer = decide("agent", "connect", target="A.corp.example.", port=443, proto="tls")
            assert answer.allowed and answer.policies == ("web",)
            assert not decide("agent", "connect", target="b.example", port=443, proto="tls").allowed
            assert "numeric" in decide("agent", "connect", target="0x7f", port=443, proto="tls").errors[0]
            assert not decide("agent", "exec", command=["ls", "-l"]).allowed
            assert decide("agent", build("connect", {"target": "a.corp.example", "port": 1, "proto": "tcp"})).allowed
            assert policy_bundle is policy_engine.bundle and policy_bundle.name == "test"

        @pytest.mark.parametrize(("action", "arguments", "said"), [
            ("conect", {}, "unknown action"),
            ("connect", {"target": "a", "port": 443, "proto": "tls", "prot": 1}, "no argument 'prot'"),
            ("connect", {"port": 443, "proto": "tls"}, "needs target"),
            ("connect", {"target": "a", "port": "443", "proto": "tls"}, "a whole number"),
            ("connect", {"target": "a", "port": True, "proto": "tls"}, "a whole number"),
            ("connect", {"target": "a", "port": 443, "proto": "tsl"}, "one of http"),
            ("exec", {"command": []}, "text or a list of text"),
            ("readFile", {"path": "/a", "operation": "write"}, "writeFile"),
        ])
        def test_a_mistake_is_no_denial(decide, action, arguments, said):
            with pytest.raises(TypeError, match=said):
                decide("agent", action, **arguments)

        class TestAnother:
            @pytest.fixture
            def policy_bundle_path(self):
                return Path("mirror")

            def test_it(self, policy_bundle):
                assert policy_bundle.name == "internal-mirror"
        """,
    )
    code, out = site.run("test_own.py")
    assert (code, "10 passed" in out) == (0, True), out
    site.configure("")
    code, out = site.run("test_own.py", "-k", "configured")
    assert (code, "one policy bundle is needed and none is configured" in out) == (1, True)


def test_the_wheel_has_the_module_that_the_entry_point_names() -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())
    (module,) = project["project"]["entry-points"]["pytest11"].values()
    assert f"src/{module}.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert (SOURCE / "src" / f"{module}.py").is_file()
