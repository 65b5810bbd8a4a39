"""Inside one run: from its claim to its end.

May import torch and Lightning; never imports `grid/`.
"""
