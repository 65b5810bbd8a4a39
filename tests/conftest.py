"""The fixtures of the engine's tests, for the tests of the researcher's files."""

from fixtures import *  # noqa: F403
