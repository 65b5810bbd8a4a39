"""Lessons: a grid and a page for each, in docs/lessons. `dora grid lessons.optimizers` runs one again."""
