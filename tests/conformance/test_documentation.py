"""The table of the contract's statements names every check, with what it needs."""

from __future__ import annotations

import re
from pathlib import Path

from channels_layers.testing import CHECKS

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
TABLES = DOCUMENT.read_text().partition("## Statement by statement")[2]
SIGNS = {
    "separate": "¹",
    "shared": "²",
    "cross_process": "³",
    "ordered_channels": "⁴",
    "asyncio": "⁵",
    "fork": "⁶",
}


def test_every_check_stands_behind_one_statement():
    named = re.findall(r"`(\w+)`[¹²³⁴⁵⁶]*(?:,| \|)", TABLES)
    assert sorted(name for name in named if name in BY_NAME) == sorted(BY_NAME)


def test_no_other_check_is_named():
    named = re.findall(r"`([a-z]+(?:_[a-z0-9]+){3,})`", DOCUMENT.read_text())
    assert set(named) <= set(BY_NAME)


def test_the_signs_say_what_a_check_needs():
    signs = dict(re.findall(r"`(\w+)`([¹²³⁴⁵⁶]*)", TABLES))
    for check in CHECKS:
        assert signs[check.name] == "".join(SIGNS.get(need, "") for need in check.needs), check.name


BY_NAME = {check.name: check for check in CHECKS}
