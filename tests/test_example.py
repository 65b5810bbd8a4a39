"""The example of the engine's tests is this project's own front page.

This is for the developers of the engine. In a project of your own the two differ, and the test is
skipped.
"""

import os

import pytest
from example import example, front_page


def test_the_example_is_the_front_page():
    ours, theirs = front_page(), example()
    names = sorted({*ours, *theirs})
    other = [name for name in names if ours.get(name) != theirs.get(name)]
    if other and not os.environ.get("DORA_TRAIN_REQUIRE_EXAMPLE"):
        pytest.skip(
            f"your front page differs: {', '.join(other)} (engine developers: make example)"
        )
    assert not other, "make example"
