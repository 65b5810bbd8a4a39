"""What the researcher's rooms raise for something that the user can mend; it imports nothing: the
engine may know it.

A value that makes no sense is a plain ValueError out of a `check_...`, before anything is on disk.
What shows only when files are opened or fetched is a `DataError`: its message is all that the user
needs to see, without a traceback.
"""


class DataError(ValueError):
    """Images, labels or weights that cannot be read or fetched; the message says what to do."""
