"""Settings for all unit tests: hypothesis draws the same examples everywhere, and no test depends on the clock."""

import os

from hypothesis import Phase, settings

settings.register_profile("course", derandomize=True, deadline=None, max_examples=40, database=None)
settings.register_profile("mutants", settings.get_profile("course"), phases=(Phase.explicit, Phase.generate))  # no shrinking
settings.load_profile(os.environ.get("DDPM_COURSE_HYPOTHESIS", "course"))
