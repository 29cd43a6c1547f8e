import errno
import inspect
import pickle
import re

import pytest

import cache_store.errors
import preprocess.errors
from cache_store.errors import StorageError, UsageError
from preprocess.errors import SourceError


def classes(module):
    return [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]


BASES = {
    cache_store.errors: cache_store.errors.CacheStoreError,
    preprocess.errors: preprocess.errors.PreprocessError,
}
ALL = classes(cache_store.errors) + classes(preprocess.errors)


def an_error(kind):
    return kind("decode", "cut after 7 bytes") if kind is SourceError else kind("what, where, found; what next")


def test_there_are_errors_to_test():
    assert len(classes(cache_store.errors)) >= 7
    assert len(classes(preprocess.errors)) >= 7


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_error_survives_pickling(kind, protocol):
    error = an_error(kind)

    copy = pickle.loads(pickle.dumps(error, protocol))

    assert type(copy) is kind
    assert str(copy) == str(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert copy.exit_code == error.exit_code


def test_storage_error_survives_pickling_with_its_number():
    copy = pickle.loads(pickle.dumps(StorageError(errno.ENOSPC, "cannot write 'x': the disk is full")))

    assert copy.errno == errno.ENOSPC
    assert str(copy) == "cannot write 'x': the disk is full"


@pytest.mark.parametrize("module", [cache_store.errors, preprocess.errors], ids=lambda module: module.__name__)
def test_drawn_tree_is_the_tree_of_classes(module):
    drawn = re.findall(r"[├└]── (\w+)(?: \((\w+)\))? +(\d+|-)", module.__doc__)

    base = BASES[module]
    assert {name for name, _, _ in drawn} | {"UsageError"} == {
        kind.__name__ for kind in [*classes(module), UsageError] if kind not in BASES.values()
    }
    for name, other_base, exit_code in drawn:
        kind = getattr(module, name)
        assert issubclass(kind, base)
        others = [b.__name__ for b in kind.__bases__ if b not in BASES.values()]
        assert others == ([other_base] if other_base else [])
        assert exit_code in ("-", str(kind.exit_code)), name


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StorageError(errno.ENOSPC, "the disk is full"), "the disk is full"),
        (StorageError("the disk is full"), "the disk is full"),
        (StorageError(), ""),
    ],
)
def test_storage_error_shows_its_message_without_a_number(error, text):
    assert str(error) == text


def test_storage_error_has_the_number_that_the_system_gave():
    assert StorageError(errno.EDQUOT, "over quota").errno == errno.EDQUOT


def test_source_error_shows_stage_and_reason():
    error = SourceError("decode", "cut")

    assert (error.stage, error.reason, str(error)) == ("decode", "cut", "decode: cut")


def test_one_usage_error_serves_both_packages_and_every_clause_catches_it():
    assert preprocess.errors.UsageError is cache_store.errors.UsageError is cache_store.UsageError
    assert preprocess.UsageError is cache_store.UsageError
    for base in (preprocess.PreprocessError, cache_store.CacheStoreError, ValueError):
        assert issubclass(UsageError, base), base
    assert not issubclass(StorageError, preprocess.PreprocessError)
    assert not issubclass(preprocess.RecipeError, cache_store.CacheStoreError)


def test_errors_can_be_caught_as_what_they_are_in_python():
    assert issubclass(cache_store.errors.NotFoundError, LookupError)
    assert issubclass(cache_store.errors.UsageError, ValueError)
    assert issubclass(cache_store.errors.StorageError, OSError)
    assert issubclass(preprocess.errors.RecipeError, ValueError)
