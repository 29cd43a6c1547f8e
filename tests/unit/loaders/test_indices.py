"""What names a sample, and what names none."""

import numpy as np
import pytest
import torch

from loaders.indices import integer, integers, within


class Index:
    def __index__(self):
        return 3


@pytest.mark.parametrize(
    "index", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8), Index()]
)
def test_one_integer(index):
    assert integer(index) == 3
    assert integers([index, 0]).tolist() == [3, 0]
    assert integers((5, index)).tolist() == [5, 3]


NO_INTEGERS = [True, np.True_, torch.tensor(True), np.array(True), 3.0, np.float64(3), torch.tensor(3.0), "3", None]


@pytest.mark.parametrize("index", [*NO_INTEGERS, [3], (3,), slice(3), torch.tensor([3]), np.array([3]), ..., {3}])
def test_what_is_not_one_integer(index):
    assert integer(index) is None
    for batch in ([index], [index, index], [2, index], [index, 700]):
        with pytest.raises(TypeError, match="index: an integer, or for a batch a list of integers.*found"):
            integers(batch)


@pytest.mark.parametrize(
    "indices",
    [
        [4, -1, 0],
        (4, -1, 0),
        [torch.tensor(4), -1, np.int64(0)],
        [torch.tensor(4), torch.tensor(-1), torch.tensor(0, dtype=torch.int8)],
        [np.int64(4), np.int64(-1), np.int64(0)],
        np.array([4, -1, 0]),
        np.array([4, -1, 0], np.int8),
        np.array([4, -1, 0], ">i4"),
        np.array([4, 9, -1, 9, 0])[::2],
        torch.tensor([4, -1, 0]),
        torch.tensor([4, -1, 0], dtype=torch.int32),
    ],
)
def test_a_batch_of_integers_is_copied(indices):
    found = integers(indices)

    assert (found.dtype, found.tolist()) == (np.int64, [4, -1, 0])
    found += 1
    assert [int(each) for each in indices] == [4, -1, 0]


@pytest.mark.parametrize("indices", [[], (), range(0), np.zeros(0, np.int64), torch.zeros(0, dtype=torch.int64)])
def test_no_integers_are_an_empty_batch(indices):
    assert (integers(indices).shape, integers(indices).dtype) == ((0,), np.int64)


@pytest.mark.parametrize(
    "indices",
    [
        *NO_INTEGERS,
        7,
        "34",
        "",
        b"\3\4",
        {3, 4},
        {3: 4},
        iter([3]),
        slice(0, 4),
        [[3, 4]],
        [[3], [4, 5]],
        [True, False],
        [True, 5],
        [0, 5.0],
        [0, None],
        np.array([[3, 4]]),
        np.array(3),
        np.array([3.0]),
        np.array([True]),
        np.array([]),
        np.array(["3"]),
        torch.tensor([[3]]),
        torch.tensor([3.0]),
        torch.tensor([True]),
        torch.tensor([3], dtype=torch.bfloat16),
        [torch.tensor([3]), torch.tensor([4])],
        [torch.tensor(3.0)],
        [torch.tensor(3), torch.tensor(True)],
        [torch.tensor(True), torch.tensor(3)],
        [np.int64(3), np.True_],
        np.ma.array([3, 4], mask=[0, 1]),
        np.ma.masked,
    ],
)
def test_everything_else_is_a_type_error(indices):
    with pytest.raises(TypeError, match="index: an integer, or for a batch"):
        integers(indices)


@pytest.mark.parametrize(
    "indices", [[torch.tensor(i) for i in range(256)], [np.int64(i) for i in range(256)], list(torch.randperm(256))]
)
def test_lists_of_tensors_and_of_numpys_integers_are_not_taken_one_by_one(monkeypatch, indices):
    expected = [int(each) for each in indices]
    monkeypatch.setattr("loaders.indices.integer", None)

    assert integers(indices).tolist() == expected


def test_a_tuple_is_no_batch_where_only_lists_are_taken():
    with pytest.raises(TypeError, match=r"found \(3, 4\)"):
        integers((3, 4), (list,))


def test_numbers_count_from_the_end():
    assert within(np.array([-1, 0, -8, 7]), 8, "split").tolist() == [7, 0, 0, 7]


@pytest.mark.parametrize("wrong", [8, -9, 2**40, -(2**63)])
def test_beyond_the_ends(wrong):
    with pytest.raises(IndexError, match=f"split 'a' has samples 0 to 7, there is no {wrong}$"):
        within(np.array([0, wrong]), 8, "split 'a'")


@pytest.mark.parametrize("indices", [[2**70], [-(2**70), 3], np.array([2**64 - 1], np.uint64), [np.uint64(2**63)]])
def test_more_than_64_bits_are_beyond_the_ends_too(indices):
    with pytest.raises(IndexError):
        within(integers(indices), 8, "split 'a'")
