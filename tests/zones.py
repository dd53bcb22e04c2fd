"""Where the day is another one than in Greenwich."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from unittest import mock

import pytest


@contextmanager
def far_east() -> Iterator[Callable[[], str]]:
    """Thirteen hours ahead; gives what the clock says there, to the hour."""
    if not hasattr(time, "tzset"):
        pytest.skip("needs time zones that can be set")
    try:
        with mock.patch.dict(os.environ, TZ="NZT-13"):
            time.tzset()
            yield lambda: f"{datetime.now():%Y-%m-%d %H}"
    finally:
        time.tzset()
