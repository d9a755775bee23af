"""Scenarios are no test modules; their assertions are to show what they compared all the same."""

from __future__ import annotations

import pytest

for _name in ("writes", "ends", "logins", "requests", "world"):
    pytest.register_assert_rewrite(f"tests.races.{_name}")
