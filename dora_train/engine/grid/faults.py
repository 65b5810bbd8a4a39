"""Points at which a test can kill a submission, to see that the next command repairs the rest."""

import os

from .. import environment


def fault(point: str) -> None:
    """End this process at once if a test asks for it at this point, as a kill -9 would."""
    if environment.fault() == point:
        os._exit(137)
