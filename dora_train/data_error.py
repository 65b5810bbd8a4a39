"""The error of the researcher's files for problems with data. It imports nothing.

So the engine may import it. It shows the message without a traceback.

A value of the configuration that makes no sense is a plain ValueError: a `check_...` raises it
before anything is written. A `DataError` is for problems that only show when files are opened or
downloaded.
"""


class DataError(ValueError):
    """Images, labels or weights cannot be read or downloaded. The message says what to do."""
