"""Settings for all unit tests: hypothesis draws the same examples everywhere, and no test depends on the clock."""

from hypothesis import settings

settings.register_profile("course", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("course")
