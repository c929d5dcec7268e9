"""The stream of batches: bounded, complete, a function of the step."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from components.reward.ladders.batches import Stream
from components.reward.ladders.ladder import Ladders


class Numbered:
    """Shards of 10 ladders that carry their own number in the levels, and a record of what was asked for."""

    def __init__(self, shards: int, last: int = 10) -> None:
        self.shards, self.last, self.loads = shards, last, list[int]()

    def __len__(self) -> int:
        return self.shards

    def __getitem__(self, shard: int, /) -> Ladders:
        self.loads.append(shard)
        rows = self.last if shard == self.shards - 1 else 10
        numbers = (10 * shard + torch.arange(rows)).float()[:, None]
        empty = torch.zeros(rows, 1)
        return Ladders(
            torch.zeros(rows, 1, 0), numbers, empty, empty, empty[..., None], empty[..., None],
            [("blur",)] * rows, ["x"] * rows, [f"c{i}" for i in range(rows)],
        )  # fmt: skip


def drawn(stream: Stream, step: int) -> list[int]:
    return stream.batch(step).levels[:, 0].int().tolist()


def test_a_batch_is_a_function_of_its_step() -> None:
    one, other = (Stream(Numbered(30), steps=100, batch=8, window=5, seed=1) for _ in range(2))
    for step in (70, 3, 99):
        assert drawn(one, step) == drawn(other, step)
    assert drawn(one, 3) != drawn(one, 4)
    assert drawn(one, 3) != drawn(Stream(Numbered(30), steps=100, batch=8, window=5, seed=2), 3)


def test_no_more_shards_are_held_than_the_window_has_and_they_arrive_in_order() -> None:
    shards = Numbered(30)
    stream = Stream(shards, steps=600, batch=8, window=5, seed=0)
    for step in range(600):
        stream.batch(step)
        assert len(stream._held) <= 5 and len(stream.at_step(step)) <= 5
    assert shards.loads[:30] == list(range(30))
    assert set(stream.at_step(239)) == {25, 26, 27, 28, 29}  # 40 % of the steps


def test_every_ladder_is_drawn_about_equally_often() -> None:
    for window in (5, 30):
        stream = Stream(Numbered(30), steps=3000, batch=8, window=window, seed=0)
        counts = Counter(number for step in range(1200, 3000) for number in drawn(stream, step))
        assert set(counts) == set(range(300))
        mean = 1800 * 8 / 300
        assert all(0.3 * mean < count < 1.9 * mean for count in counts.values())


def test_few_steps_look_at_few_shards_and_nothing_comes_twice_in_a_batch() -> None:
    shards = Numbered(30)
    stream = Stream(shards, steps=10, batch=12, window=30, seed=0)
    for step in range(10):
        batch = drawn(stream, step)
        assert len(batch) == len(set(batch)) == 12
    assert stream.used == 12 and set(shards.loads) <= set(range(12))


@pytest.mark.parametrize("last", [1, 10])
def test_a_batch_may_be_larger_than_all_there_is(last: int) -> None:
    stream = Stream(Numbered(2, last), steps=5, batch=64, window=3, seed=0)
    assert len(drawn(stream, 4)) == 64 and set(drawn(stream, 4)) == set(range(10 + last))


def test_a_list_of_ladders_is_one_shard_each() -> None:
    stream = Stream([Numbered(1)[0]], steps=5, batch=4, window=3, seed=0)
    assert stream.used == 1 and len(drawn(stream, 2)) == 4
