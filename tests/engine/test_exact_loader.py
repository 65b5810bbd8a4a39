"""Any loader, from any place of any epoch: the same batches, whatever the workers and the ranks."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from dora_train.counters import seed_cpu
from dora_train.engine.errors import UserError
from dora_train.engine.run.exact_loader import batches_from
from dora_train.engine.run.given import Loaders
from dora_train.engine.run.loaders import (
    Loader,
    TrainLoader,
    can_resume_within,
    each_loader,
    num_samples,
    share_of,
)
from dora_train.engine.run.ranks import Ranks
from dora_train.engine.upstream.lightning import repeats


class Drawing(Dataset):
    """(index, a draw of each global generator)."""

    def __init__(self, size: int = 23):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, float(torch.rand(())), float(numpy.random.rand()), random.random()


class Whole(Drawing):
    """Reads a batch at once."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for index in range(first, 23, step):
            yield index, float(torch.rand(())), random.random()


class InTurns:
    """Batches of 1 to 4; it draws while it is read."""

    def __iter__(self) -> Any:
        indices = iter(range(23))
        while batch := list(itertools.islice(indices, 1 + random.randrange(4))):
            yield batch


def weighted(**how: Any) -> DataLoader:
    weights = torch.arange(1.0, 24.0)
    return DataLoader(Drawing(), 4, sampler=WeightedRandomSampler(weights, 30), **how)


LOADERS = {
    "shuffled": lambda **how: DataLoader(Drawing(), 4, shuffle=True, **how),
    "in order": lambda **how: DataLoader(Drawing(), 4, **how),
    "without the rest": lambda **how: DataLoader(Drawing(), 4, shuffle=True, drop_last=True, **how),
    "weighted": weighted,
    "its own generator": lambda **how: DataLoader(
        Drawing(), 4, shuffle=True, generator=torch.Generator().manual_seed(7), **how
    ),
    "a sampler of its own": lambda **how: DataLoader(Drawing(), batch_sampler=InTurns(), **how),
    "read at once": lambda **how: DataLoader(Whole(), 4, shuffle=True, **how),
    "a stream": lambda **how: DataLoader(Stream(), 4, **how),
}


def batches(source: Any, seed: int = 0, purpose: str = "train", say: Any = print) -> Any:
    return batches_from(source, seed_cpu, seed, purpose, {"batch_size": 4}, say)


def given(source: Any, *place: int, **how: Any) -> list[str]:
    """As text, to the last digit; numbers are drawn between the batches as a training does."""
    found = []
    for batch in batches(source, **how).epoch(*place):
        found.append(str([values.tolist() for values in batch]))
        torch.rand(3), numpy.random.rand(), random.random()
    return found


@pytest.mark.parametrize("name", LOADERS)
def test_an_epoch_is_the_same_from_any_place(name: str):
    make = LOADERS[name]
    whole = given(make(), 3)
    assert len(whole) >= 5
    for start in (1, 4):
        random.seed(start)
        torch.manual_seed(start)
        assert given(make(), 3, start) == whole[start:]
    assert given(make(), 4) != whole and given(make(), 3, seed=1) != whole


@pytest.mark.parametrize("name", [name for name in LOADERS if name != "a stream"])
def test_workers_change_nothing(name: str):
    for workers in (1, 2):
        assert given(LOADERS[name](num_workers=workers), 2, 1) == given(LOADERS[name](), 2, 1)


def test_workers_that_stay_hear_of_the_next_epoch():
    make = LOADERS["shuffled"]
    staying = batches(make(num_workers=2, persistent_workers=True))
    for epoch in (0, 1):
        found = [str([values.tolist() for values in batch]) for batch in staying.epoch(epoch)]
        assert found == given(make(), epoch)


# a data set that reads whole batches draws for each rank's share
@pytest.mark.parametrize("name", [name for name in LOADERS if name != "read at once"])
def test_ranks_share_each_batch(name: str):
    """Each sample with the draws that it has on one rank; `sizes` says how many there were."""
    whole = batches(LOADERS[name]())
    alone = [sorted(zip(*(v.tolist() for v in batch))) for batch in whole.epoch(1)]
    ranks = [batches(LOADERS[name]()) for _ in range(3)]
    shares = [list(rank.epoch(1, 0, at, 3)) for at, rank in enumerate(ranks)]
    for number, wanted in enumerate(alone):
        together = []
        for rank, parts in zip(ranks, shares):
            mine, total = rank.sizes[number]
            assert total == len(wanted) == whole.sizes[number][0]
            rows = list(zip(*(values.tolist() for values in parts[number])))
            assert len(rows) == max(mine, 1), "a rank without a sample takes one that counts 0"
            together += rows[:mine]
        assert sorted(together) == wanted


def test_the_process_draws_on_as_if_nothing_was_read():
    torch.manual_seed(5), random.seed(5), numpy.random.seed(5)
    wanted = torch.rand(2).tolist(), random.random(), numpy.random.rand()
    for name in LOADERS:
        torch.manual_seed(5), random.seed(5), numpy.random.seed(5)
        list(batches(LOADERS[name]()).epoch(0, 2))
        assert (torch.rand(2).tolist(), random.random(), numpy.random.rand()) == wanted, name


def test_the_order_is_that_of_the_loader():
    """Shuffled: every sample once, and not as they stand; in order: as they stand."""
    indices = [
        index for batch in batches(LOADERS["shuffled"]()).epoch() for index in batch[0].tolist()
    ]
    assert sorted(indices) == list(range(23)) != indices
    indices = [
        index for batch in batches(LOADERS["in order"]()).epoch() for index in batch[0].tolist()
    ]
    assert indices == list(range(23))
    assert len(list(batches(LOADERS["without the rest"]()).epoch())) == 5
    heavy = [index for batch in batches(weighted()).epoch() for index in batch[0].tolist()]
    assert len(heavy) == 30 and sum(heavy) / 30 > 13, "heavier samples come more often"


def test_a_sample_that_comes_twice_in_an_epoch_is_drawn_for_twice():
    loader = DataLoader(Drawing(2), 4, sampler=RandomSampler(range(2), True, 8))
    draws = [draw for batch in batches(loader).epoch() for draw in batch[1].tolist()]
    assert len(set(draws)) == len(draws) == 8


def test_ten_million_samples_cost_no_list():
    class Numbers(Drawing):
        def __getitem__(self, index: int) -> Any:
            return index

    import tracemalloc

    loader = DataLoader(Numbers(10_000_000), 100, shuffle=True)
    tracemalloc.start()
    batch = next(batches(loader).epoch(0, 99_990))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(batch) == 100 and most < 10e6, "bytes of Python objects; the order is a tensor"


# --- other sources ---


def test_a_data_set_gets_a_loader():
    assert [len(batch[0]) for batch in batches(Drawing()).epoch()] == [4, 4, 4, 4, 4, 3]
    assert given(Drawing(), 0) != given(Drawing(), 0, purpose="valid")
    assert [batch[0].tolist() for batch in batches(Drawing(), purpose="valid").epoch()][0] == [
        0,
        1,
        2,
        3,
    ]


def test_a_number_of_that_name_is_no_way_to_give_batches():
    data = Drawing()
    data.epoch = 3  # type: ignore[attr-defined]
    assert given(data, 1) == given(Drawing(), 1)
    assert each_loader([data, data], lambda one, at: at) == [0, 1]


def test_a_list_and_an_iterable_of_batches():
    class Twice:
        def __iter__(self) -> Any:
            for index in range(6):
                yield [torch.full((2,), index), torch.rand(2), torch.tensor([random.random()])]

    assert list(batches([1, 2, 3]).epoch(5, 1)) == [2, 3]
    assert given(Twice(), 1, 2) == given(Twice(), 1)[2:] != given(Twice(), 2)[2:]
    with pytest.raises(UserError, match="2 ranks cannot share batches of a list"):
        list(batches([1, 2]).epoch(0, 0, 1, 2))


def test_a_sample_that_is_a_batch():
    loader = DataLoader(Drawing(5), batch_size=None, sampler=RandomSampler(range(5)))
    assert sorted(batch[0] for batch in batches(loader).epoch()) == [0, 1, 2, 3, 4]
    assert batches(loader).sizes == {}
    with pytest.raises(UserError, match="such a batch cannot be divided"):
        list(batches(loader).epoch(0, 0, 1, 2))


@pytest.mark.parametrize("source, words", [(iter([1]), "read once"), (7, "which gives no batches")])
def test_what_is_refused(source: Any, words: str):
    with pytest.raises(UserError, match=words):
        batches(source)


def test_slow_skipping_is_said(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr("dora_train.engine.run.streamed.SLOW", -1.0)
    list(batches(LOADERS["a stream"](), say=said.append).epoch(0, 3))
    assert len(said) == 1 and said[0].startswith("read the 3 batches before this one again")


def test_the_workers_start_sees_the_users_data_set():
    class Opening(Drawing):
        opened = 0

        def __getitem__(self, index: int) -> Any:
            return self.opened

    def open_files(worker: int) -> None:
        get_worker_info().dataset.opened = worker + 1

    loader = DataLoader(Opening(), 4, num_workers=2, worker_init_fn=open_files)
    seen = {value for batch in batches(loader).epoch() for value in batch.tolist()}
    assert seen == {1, 2}


# --- what the engine asks of a loader ---


def test_how_many_samples_a_batch_has():
    positions = torch.zeros(100)
    assert num_samples(("name", {"b": [torch.zeros(4, 2)]}, positions)) == 4
    assert num_samples("a string") == num_samples([]) == num_samples(torch.tensor(1.0)) == 1
    data = TensorDataset(positions[:10])
    made = batches(DataLoader(data, batch_sampler=BatchSampler(range(10), 4, False)))
    loader = Loader(made, Ranks())
    list(loader._epoch(0, 0))
    assert [share_of([loader], 0, number) for number in range(4)] == [(4, 4), (4, 4), (2, 2), None]
    loader = Loader(made, Ranks(), repeats=True)
    shares = [share_of([loader], 0, number) for number in range(4)]
    assert shares == [(4, 4), (4, 4), (2, 2), (4, 4)], "read again beside a longer loader"
    assert share_of(None, 0, 0) is None


def test_several_loaders():
    def name(loader: Any, number: int) -> str:
        return f"{number} {type(loader).__name__}"

    loader = DataLoader(Drawing())
    assert each_loader([loader, loader], name) == ["0 DataLoader", "1 DataLoader"]
    assert each_loader({"a": loader}, name) == {"a": "0 DataLoader"}
    assert each_loader([1, 2], name) == "0 list", "the batches of one loader"


class Beside(pl.LightningModule):
    """Notes the samples of two loaders, in each step."""

    def __init__(self, seen: list[Any]):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(1, 1), seen

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append([part[0].tolist() for part in batch])
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trained_beside(short: Any, epochs: int = 2) -> list[Any]:
    """What each step of some epochs sees of a loader of five batches, and of a shorter one."""
    seen: list[Any] = []
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = Loaders(trainer, Ranks(), 0, {"batch_size": 2}, False, print)
    trainer.fit(Beside(seen), loaders.of("train", [TensorDataset(torch.arange(10)), short]))
    return seen


@pytest.mark.filterwarnings("ignore")
def test_a_shorter_loader_is_read_again_beside_a_longer_one():
    seen = trained_beside(DataLoader(TensorDataset(torch.arange(4)), 2, shuffle=True), epochs=8)
    assert len(seen) == 40, "an epoch has as many steps as the longest loader has batches"
    epochs = [seen[first : first + 5] for first in range(0, 40, 5)]
    rounds = [[*epoch[at][1], *epoch[at + 1][1]] for epoch in epochs for at in (0, 2)]
    assert all(sorted(one) == [0, 1, 2, 3] for one in rounds)
    assert any(rounds[at] != rounds[at + 1] for at in range(0, 16, 2)), "in an order of its own"


@pytest.mark.filterwarnings("ignore")
def test_the_second_of_two_data_sets_is_shuffled_too():
    seen = trained_beside(TensorDataset(torch.arange(10)))
    first, second = ([one for step in seen[at : at + 5] for one in step[1]] for at in (0, 5))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second != list(range(10))


def test_where_a_loader_goes_on_after_a_resume():
    """The ninth batch of an epoch of twelve: the first of the third round of four batches."""
    loaders = {name: DataLoader(TensorDataset(torch.arange(size)), 1) for name, size in SIZES}
    progress: Any = SimpleNamespace(num_training_batches=12)
    made = {
        name: TrainLoader(batches(loader), Ranks(), progress, repeats=True)
        for name, loader in loaders.items()
    }
    for at, (long, short) in {0: (0, 0), 9: (9, 1), 12: (None, None)}.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dora_train.engine.run.loaders.position", lambda trainer: (at, at))  # noqa: B023
            found = [next(iter(loader), [None])[0] for loader in made.values()]
        assert found == [long, short]


SIZES = [("long", 12), ("short", 4)]


def test_lightning_tells_which_loaders_are_read_again():
    loaders = [DataLoader(Drawing()), DataLoader(Drawing())]
    assert repeats(loaders) and repeats({"a": loaders[0]})
    assert repeats(CombinedLoader(loaders, "max_size_cycle"))
    assert not repeats(CombinedLoader(loaders, "max_size")) and not repeats(loaders[0])


def test_no_checkpoint_within_an_epoch_if_nobody_knows_where_a_loader_is():
    known = Loader(batches(DataLoader(Drawing())), Ranks(), repeats=True)
    unknown = Loader(batches(DataLoader(Stream())), Ranks(), repeats=True)
    once = Loader(batches(DataLoader(Stream())), Ranks())
    assert can_resume_within([unknown]) and can_resume_within([known, known])
    assert can_resume_within([once, once]), "none is read again"
    assert not can_resume_within([known, unknown])
