"""Which files a fold rewrites and where it cuts its work: pure decisions over bounds."""

from __future__ import annotations

import random
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from glue_streaming.fold.ranges import WHOLE, Cut, KeyRange, Run, Slot, in_range, runs, split

KEYS = range(60)


def slot(*bounds: tuple[object, object], size: int = 100) -> Slot:
    return Slot(tuple(bounds), size)


def holds(keys: KeyRange, key: tuple[object, ...]) -> bool:
    """Whether a key lies in a range; said from a cut's meaning alone."""

    def is_before(cut: Cut) -> bool:
        part = key[: len(cut.prefix)]
        return part <= cut.prefix if cut.after else part < cut.prefix

    return (keys.low is None or not is_before(keys.low)) and (keys.high is None or is_before(keys.high))


def found(slots: list[Slot], changed: set[int], small: int = 0) -> list[Run]:
    return runs(slots, lambda keys: any(holds(keys, (key,)) for key in changed), small)


FULL = [slot((0, 9)), slot((10, 19)), slot((20, 29)), slot((30, 39))]


def test_only_the_files_that_hold_a_changed_key_are_rewritten() -> None:
    """Neighbours become one run, others runs of their own; the files between stay."""
    assert [run.files for run in found(FULL, {12, 35})] == [(1,), (3,)]
    assert [run.files for run in found(FULL, {12, 25})] == [(1, 2)]
    assert found(FULL, set()) == []


def test_new_keys_get_files_of_their_own_beside_full_files() -> None:
    """Rows that come at the table's end leave its last full file alone; a small one takes them in."""
    (run,) = found(FULL, {50, 51})
    assert run.files == ()
    assert [run.files for run in found([*FULL, slot((40, 44), size=10)], {50}, small=20)] == [(4,)]
    assert [run.files for run in found(FULL, {35, 50})] == [(3,)]


def test_small_files_beside_each_other_become_one() -> None:
    """Without a change among them; a small one alone stays."""
    small = [slot((0, 9), size=5), slot((10, 19), size=5), slot((20, 29)), slot((30, 39), size=5)]
    assert [run.files for run in found(small, set(), small=20)] == [(0, 1)]


def test_files_that_may_share_keys_are_rewritten_with_what_lies_between() -> None:
    """Bounds of a composite key promise more than the file holds: no key may be in two runs."""
    spread = [slot((1, 1), (0, 50)), slot((1, 1), (51, 90)), slot((1, 2)), slot((3, 3), (0, 9))]
    changed = [(1, 5), (2, 1)]
    touched = runs(spread, lambda keys: any(holds(keys, key) for key in changed), 0)
    assert [run.files for run in touched] == [(0, 1, 2)]
    assert [run.files for run in runs(spread, lambda keys: holds(keys, (1, 60)), 0)] == [(1, 2)]


def test_without_bounds_all_is_one_run() -> None:
    """A key whose order is not told by bounds: everything is rewritten, as one."""
    assert found([slot(), slot((3, 4))], {1}) == [Run((0, 1), WHOLE)]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_every_changed_key_lies_in_one_run_with_every_file_that_may_hold_it(seed: int) -> None:
    """Whatever the files, the gaps between them, their sizes, and the keys that changed."""
    rng = random.Random(seed)
    edges = sorted(rng.sample(KEYS, 2 * rng.randint(1, 8)))
    slots = [slot((low, high), size=rng.choice([5, 100])) for low, high in zip(edges[::2], edges[1::2], strict=True)]
    if rng.random() < 0.3:
        slots.append(slot(tuple(sorted(rng.sample(KEYS, 2)))))  # type: ignore[arg-type]
    rng.shuffle(slots)
    changed = set(rng.sample(KEYS, rng.randint(0, 6)))
    result = found(slots, changed, small=20)
    for key in changed:
        (run,) = [run for run in result if holds(run.range, (key,))]
        assert {n for n, one in enumerate(slots) if one.bounds[0][0] <= key <= one.bounds[0][1]} <= set(run.files)
    used = [n for run in result for n in run.files]
    assert len(used) == len(set(used))
    for run in result:
        parts = split(run.range, [slots[n] for n in run.files] or slots, 1000, 100)
        for key in KEYS:
            assert sum(holds(part, (key,)) for part in parts) == holds(run.range, (key,))


def test_a_range_is_cut_where_files_begin() -> None:
    """Into parts of about the size that is asked for, and no more than the bounds tell apart."""
    assert split(WHOLE, FULL, 400, 200) == [KeyRange(None, Cut((20,))), KeyRange(Cut((20,)), None)]
    assert len(split(WHOLE, FULL, 400, 1)) == 4
    assert split(WHOLE, [slot()], 400, 1) == [WHOLE]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_file_is_read_for_a_range_just_where_its_bounds_leave_a_key_of_it(seed: int) -> None:
    """Bounds of one column and of two, of one value and of several; between any two values lies another."""
    rng = random.Random(seed)
    every = list(product([n / 2 for n in range(-1, 8)], repeat=2))

    def pair() -> tuple[int, int]:
        low, high = sorted(rng.choices(range(4), k=2))
        return low, high

    def cut() -> Cut:
        return Cut(tuple(rng.choices(range(4), k=rng.randint(1, 2))), rng.random() < 0.5)

    first = pair()
    file = slot(first, pair()) if first[0] == first[1] and rng.random() < 0.7 else slot(first)
    keys = KeyRange(cut() if rng.random() < 0.8 else None, cut() if rng.random() < 0.8 else None)
    within = [key for key in every if holds(keys, key)]
    lie = [key for key in within if all(low <= k <= high for k, (low, high) in zip(key, file.bounds, strict=False))]
    assert not within or in_range(file, keys) == bool(lie)
