"""Property tests of the core: no deadline per example, for a loaded machine is not a finding."""

from hypothesis import settings

settings.register_profile("core", deadline=None, print_blob=True)
settings.load_profile("core")
