"""`python -m dora_train.code`, the earlier name of `python -m dora_train.snapshots`."""

from .snapshots import main

if __name__ == "__main__":
    main()
