"""What the processes of `estserver` end with, beside 0."""

from typing import Final

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 2
"""A person has to mend what the last line says; starting again does not help."""
