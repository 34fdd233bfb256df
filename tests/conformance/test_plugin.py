"""The plug-in as a third-party author meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TEN_LINES = """
    import pytest
    from channels_layers import InMemoryChannelLayer

    class MyLayer(InMemoryChannelLayer):
        {body}

    @pytest.fixture
    def channel_layer_maker():
        return {maker}

    {mark}
    def test_my_layer_keeps_the_contract(conformance_check):
        conformance_check()
"""


@pytest.fixture
def outcome(pytester):
    """Run the ten lines with one check and return what pytest said."""
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())

    def run(check, body="pass", maker="MyLayer", mark=""):
        pytester.makepyfile(TEN_LINES.format(body=body, maker=maker, mark=mark))
        return pytester.runpytest_inprocess("-k", check, "-rs", "-p", "no:asyncio")

    return run


def test_ten_lines_run_each_check_on_asyncio_and_trio(outcome):
    outcome("an_empty_dict_is_a_message").assert_outcomes(passed=2)


def test_a_broken_statement_is_a_failed_test(outcome):
    body = "async def group_send(self, group, message): pass"
    result = outcome("an_empty_dict_is_a_message", body, mark=limited("limit=0.2"))
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*TimeoutError: still waiting after 0.2 s*"])


def test_what_does_not_apply_is_skipped_with_its_reason(outcome):
    result = outcome("two_clients_reach_each_other")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*the layer does not guarantee `shared`*"])


def test_trio_is_skipped_where_it_is_not_guaranteed(outcome):
    body = "from channels_layers import Guarantees; guarantees = Guarantees(trio=False)"
    result = outcome("an_empty_dict_is_a_message", body)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*the layer does not guarantee `trio`*"])


def test_the_marker_chooses_the_event_loops(outcome):
    result = outcome("an_empty_dict_is_a_message", mark=limited("loops=['uvloop']"))
    result.assert_outcomes(passed=1)


def test_an_unknown_event_loop_is_an_error(outcome):
    result = outcome("an_empty_dict_is_a_message", mark=limited("loops=['asyncoi']"))
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*conformance: no such event loop: asyncoi*"])


def test_options_reach_the_maker(outcome):
    maker = "lambda capacity=100, **options: MyLayer(capacity=capacity + 1, **options)"
    outcome("the_default_capacity_is_100", maker=maker).assert_outcomes(failed=2)


def test_the_plug_in_imports_nothing_of_the_kit_until_it_is_used():
    code = (
        "import sys, channels_layers.testing.pytest_plugin;"
        " print([name for name in sys.modules"
        " if name.startswith(('anyio', 'trio', 'channels_layers.testing.c'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def limited(arguments):
    return f"@pytest.mark.conformance({arguments})"
