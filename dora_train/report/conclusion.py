"""The result of a comparison of settings in words: one sentence, and remarks below it."""

from collections import Counter
from collections.abc import Sequence

from ..engine.words import main_metric
from .ranking import TEST, Ranked, Ranking, is_finite
from .verdict import BEST, MOST_NEEDED, UNDECIDED, WORSE

EPOCHS = {"valid": "validation {} of the last epoch", "train": "train {} of the last epoch"}


def conclusion(ranking: Ranking) -> str:
    """The result in one sentence. If there is none yet, the sentence says why."""
    entries = ranking.entries
    known = [one for one in entries if one.found.n]
    if not ranking.metric:
        return "No run has a metric yet: there is nothing to compare."
    if not known:
        return f"No run has finished with a {described(ranking.metric)}: nothing can be compared."
    if not ranking.mode:
        return _without_direction(ranking)
    if len(entries) == 1:
        return "There is one setting only: nothing to compare it with."
    with_spread = [one for one in entries if one.found.n > 1]
    if len(with_spread) < 2:
        return _too_few(known, _noun(ranking))
    return f"{_decided(ranking)}{_undecided(ranking)}."


def described(metric: str) -> str:
    """`test acc of the best epoch`: the set and the epoch that a metric is measured on."""
    split, _, name = metric.partition(".")
    if metric.startswith(TEST):
        return f"test {name} of the best epoch"
    if split == "best" and name.startswith("train."):
        return f"{name.replace('.', ' ')} of the best epoch"
    if split == "best":
        return f"validation {name.replace('.', ' ')} of the best epoch"
    return EPOCHS.get(split, "{}").format(name or metric)


def _noun(ranking: Ranking) -> str:
    """The word for the runs of a setting: `seed` if runs are grouped over the seed alone."""
    if list(ranking.over) == ["seed"]:
        return "seed"
    return "run"


def _without_direction(ranking: Ranking) -> str:
    words = ranking.metric.replace(".", " ")
    if ranking.disagree:
        return (
            f"No verdict: the experiments disagree on whether more or less of {words} is better"
            " (best.mode)."
        )
    return f"No verdict: it is not known whether more or less of {words} is better (best.mode)."


def _too_few(known: Sequence[Ranked], noun: str) -> str:
    """The sentence if fewer than two settings have a spread.

    Args:
        known: the settings that have a value.
    """
    first = known[0]
    if len(known) == 1:
        return f"Only {first.name} has a result: there is nothing to compare it with yet."
    if first.found.n > 1:
        return f"Only {first.name} has more than one {noun}, and one {noun} of another cannot tell."
    needs = max(one.found.needs or 0 for one in known)
    return (
        f"One {noun} each cannot tell which setting is better:"
        f" {first.name} is ahead, and each needs at least {needs} more {noun}s."
    )


def _decided(ranking: Ranking) -> str:
    """`lr=0.1 is better than 5 of the 7 other settings`."""
    best, worse = ranking.of_verdict(BEST), ranking.of_verdict(WORSE)
    others = len(ranking.entries) - len(best)
    if not others:
        count = "Both" if len(best) == 2 else f"All {len(best)}"
        return f"{count} settings are level in {described(ranking.metric)}"
    leader = f"{_listed(best)} is"
    if len(best) > 1:
        leader = f"{_listed(best)} are level, and"
    if not worse:
        return f"{leader} ahead, which may be chance"
    if others == 1:
        return f"{leader} better than {worse[0].name}"
    return f"{leader} better than {_share(len(worse), others)} other settings"


def _share(count: int, total: int) -> str:
    """`5 of the 7`, `both`, `all 7`."""
    if count < total:
        return f"{count} of the {total}"
    if total == 2:
        return "both"
    return f"all {total}"


def _undecided(ranking: Ranking) -> str:
    """`; 2 are undecided: 4 more seeds each would probably tell`."""
    undecided = ranking.of_verdict(UNDECIDED)
    noun = _noun(ranking)
    several = [one for one in undecided if one.found.n > 1]
    counts = Counter(one.found.n for one in undecided)
    found = ""
    if several:
        found += f"; {_needed(several, noun)}"
    if counts[1]:
        found += f"; {counts[1]} {_form(counts[1], 'has', 'have')} one {noun} only"
    if counts[0]:
        found += f"; {counts[0]} {_form(counts[0], 'has', 'have')} no result"
    return found


def _needed(undecided: Sequence[Ranked], noun: str) -> str:
    """How many more seeds would tell, and for how many of the settings."""
    count = len(undecided)
    needs = [one.found.needs for one in undecided if one.found.needs is not None]
    start = f"{count} {_form(count, 'is', 'are')} undecided"
    if not needs:
        return f"{start}, and {MOST_NEEDED} more {noun}s each would probably not tell"
    low, high = min(needs), max(needs)
    wanted = f"{low} more {noun}" if low == high else f"{low} to {high} more {noun}"
    plural = _form(high, "", "s")
    sentence = f"{start}: {wanted}{plural} each would probably tell"
    if len(needs) < count:
        return f"{sentence} for {len(needs)} of them"
    return sentence


def _form(count: int, one: str, many: str) -> str:
    """The form of a word that fits the count."""
    if count == 1:
        return one
    return many


def _listed(entries: Sequence[Ranked]) -> str:
    """`lr=0.1 and lr=0.2`, or `lr=0.1 and 3 others` if there are more than two settings."""
    first, *others = entries
    if not others:
        return first.name
    if len(others) == 1:
        return f"{first.name} and {others[0].name}"
    return f"{first.name} and {len(others)} others"


# --- below the sentence ---


def remarks(ranking: Ranking) -> list[str]:
    """How the settings were compared, and which runs are in no mean."""
    found = []
    if ranking.metric:
        found.append(_method(ranking))
    if any(one.found.std is not None for one in ranking.entries):
        over = ", ".join(ranking.over) or "runs"
        found.append(f"± standard deviation over {over}; 95%: interval of the mean (Student's t).")
    return [*found, *_left_out(ranking), *_doubts(ranking)]


def _method(ranking: Ranking) -> str:
    start = f"Compared by {described(ranking.metric)}"
    paired = []  # of each setting that is compared with the best one
    for one in ranking.entries:
        if one.found.difference_interval and one.verdict != BEST:
            paired.append(one.found.paired)
    if not paired:
        return f"{start}."
    how = "by Welch's statistic, as too few seeds are shared"
    if all(paired):
        how = "seed by seed"
    elif any(paired):
        how = "seed by seed if three seeds or more are shared, else by Welch's statistic"
    return f"{start}, {how}. The intervals of the differences hold for all at once (95%, max-t)."


def _left_out(ranking: Ranking) -> list[str]:
    """The runs that are in no mean, counted by the reason."""
    runs = ranking.runs
    unfinished = without = 0
    for run in runs:
        if not run.finished:
            unfinished += 1
        elif not is_finite(run, ranking.metric):
            without += 1
    counted = sum(one.found.n + one.found.missing for one in ranking.entries)
    found = []
    if unfinished:
        found.append(
            f"{_count(unfinished, 'unfinished run', 'is', 'are')} not included in any mean."
        )
    if without and ranking.metric:
        name = ranking.metric.replace(".", " ")
        found.append(f"{_count(without, 'finished run', 'has', 'have')} no finite {name}.")
    if counted < len(runs):
        repeated = _count(len(runs) - counted, "run", "repeats", "repeat")
        found.append(f"{repeated} the seed of another with the same values: each seed counts once.")
    return found


def _count(count: int, noun: str, one: str, many: str) -> str:
    """`1 run has`, `3 runs have`; `one` and `many` are the verb."""
    return f"{count} {noun}{_form(count, '', 's')} {_form(count, one, many)}"


def _doubts(ranking: Ranking) -> list[str]:
    """Reasons to take the numbers with care."""
    found = []
    main = sorted({main_metric(run.birth.config)[0] for run in ranking.runs if run.birth})
    if len(main) > 1:
        found.append(f"The runs chose their best epochs by different metrics: {', '.join(main)}.")
    if ranking.metric.startswith(("best.", "valid.")):
        found.append("This is not the test set: values that chose the best epoch are optimistic.")
    return found
