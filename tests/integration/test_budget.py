"""How many images may fail; what is remembered of those that did."""

import os

import pytest

from cache_store.errors import NotFoundError
from cache_store.reader import open_cache
from preprocess import FailureBudgetExceeded, UsageError
from preprocess.builder import build
from tests import decoders
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import assert_as_rendered, contents, failures, paths

NOTING = "tests.decoders:decode"


def with_bad(folder, bad, good=8):
    image_folder(folder, count=good // 2)
    (folder / "cat").mkdir(parents=True, exist_ok=True)
    for i in range(bad):
        (folder / "cat" / f"bad {i:03d}.jpg").write_bytes(b"no image %d" % i)
    return folder


@pytest.fixture(scope="module")
def eleven_bad(tmp_path_factory):
    return with_bad(tmp_path_factory.mktemp("eleven") / "photos", 11)


@pytest.mark.parametrize(
    ("setting", "bad", "fits"),
    [
        (None, 10, True),
        (None, 11, False),
        ("100", 11, True),
        (10, 11, False),
        ("50%", 8, True),  # 8 of 16
        ("50%", 9, False),  # 9 of 17 are more than 8.5
        ("0%", 1, False),
    ],
)
def test_the_budget_is_a_number_or_a_share_and_by_default_ten(tmp_path, setting, bad, fits):
    with_bad(tmp_path / "photos", bad)

    if fits:
        report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, max_failures=setting)
        assert len(report.failures) == bad
        assert report.samples == {"train": 8}
    else:
        with pytest.raises(FailureBudgetExceeded, match=rf"{bad} of {bad + 8} images failed"):
            build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, max_failures=setting)
        with pytest.raises(NotFoundError, match="no finished snapshot"):
            open_cache(tmp_path / "cache")


@pytest.mark.parametrize("bad", [12, 13])
def test_the_default_grows_to_one_percent(tmp_path, bad):
    with_bad(tmp_path / "photos", bad, good=2)
    for i in range(1200 - bad - 2):  # equal files: rendered once
        os.link(tmp_path / "photos" / "dog" / "000.png", tmp_path / "photos" / "dog" / f"copy {i:04d}.png")

    if bad <= 12:
        assert build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1).samples == {"train": 1188}
    else:
        with pytest.raises(FailureBudgetExceeded, match="13 of 1,200 images failed, the budget is 12"):
            build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)


def test_beyond_the_budget_the_message_names_the_first_images_and_the_way_out(eleven_bad, tmp_path):
    with pytest.raises(FailureBudgetExceeded) as caught:
        build(eleven_bad, tmp_path / "cache", TINY, workers=1)

    message = str(caught.value)
    assert "the budget is 10" in message
    assert "nothing was committed" in message
    assert "cat/bad 0" in message
    assert "decode: not an image" in message
    assert "--max-failures" in message
    assert caught.value.exit_code == 3


def test_what_was_finished_before_the_budget_was_exceeded_is_kept(eleven_bad, tmp_path, notes):
    with pytest.raises(FailureBudgetExceeded):
        build(eleven_bad, tmp_path / "cache", TINY, workers=1, decoder=NOTING)
    done = len(list((tmp_path / "cache" / "pending").glob("*/*.record")))
    assert done
    decoders.noted().unlink()

    report = build(eleven_bad, tmp_path / "cache", TINY, workers=1, max_failures="100%", decoder=NOTING)

    assert report.samples == {"train": 8}
    assert report.rendered < 8
    assert len(decoders.noted().read_text().splitlines()) < 19
    assert_as_rendered(tmp_path / "cache", eleven_bad)


def test_an_exceeded_budget_leaves_the_former_snapshot(eleven_bad, tmp_path):
    image_folder(tmp_path / "photos")
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)
    before = contents(tmp_path / "cache")
    with_bad(tmp_path / "photos", 11)

    with pytest.raises(FailureBudgetExceeded):
        build(tmp_path / "photos", tmp_path / "cache", workers=1)

    assert contents(tmp_path / "cache") == before


@pytest.mark.parametrize("setting", [None, "100%"])
def test_a_build_without_one_usable_image_is_refused_whatever_the_budget(tmp_path, setting):
    with_bad(tmp_path / "photos", 3, good=0)

    with pytest.raises(FailureBudgetExceeded, match="none of 3 images could be used") as caught:
        build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, max_failures=setting)

    assert "not an image" in str(caught.value)


@pytest.mark.parametrize("setting", ["many", "-1", -1, "101%", "nan%", "1.5", ""])
def test_a_budget_that_cannot_be_meant_is_refused_before_anything_is_made(tmp_path, setting):
    image_folder(tmp_path / "photos", count=1)

    with pytest.raises(UsageError, match="max_failures: a number like 100 or a share like 1% expected"):
        build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, max_failures=setting)

    assert not (tmp_path / "cache").exists()


# -- what is remembered ----------------------------------------------------------------------------------------------


@pytest.fixture
def remembered(tmp_path, notes):
    """A cache of 8 images, one that does not decode, and one that cannot be read."""
    image_folder(tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"not an image")
    (tmp_path / "photos" / "cat" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    for folder, _, names in os.walk(tmp_path / "photos"):  # old enough not to be in doubt
        for name in names:
            os.utime(os.path.join(folder, name), (1e9, 1e9), follow_symlinks=False)
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, decoder=NOTING)
    assert len(decoders.noted().read_text().splitlines()) == 9
    decoders.noted().unlink()
    return tmp_path / "photos", tmp_path / "cache"


def test_an_undecodable_image_is_not_decoded_again(remembered):
    photos, cache = remembered
    before = failures(cache)

    report = build(photos, cache, workers=1, decoder=NOTING)

    assert report.up_to_date
    assert not decoders.noted().exists()
    assert failures(cache) == before
    assert [f["path"] for f in report.failures] == ["cat/bad.png", "cat/link.png"]


def test_an_undecodable_image_is_known_by_another_name_and_when_more_is_built(remembered):
    photos, cache = remembered
    (photos / "cat" / "bad.png").rename(photos / "dog" / "still bad.png")
    write_image(photos / "dog" / "new.png", 555)

    build(photos, cache, workers=1, decoder=NOTING)

    assert len(decoders.noted().read_text().splitlines()) == 1
    assert list(failures(cache)) == ["cat/link.png", "dog/still bad.png"]
    assert_as_rendered(cache, photos)


def test_retry_failed_decodes_it_again(remembered):
    photos, cache = remembered

    report = build(photos, cache, workers=1, decoder=NOTING, retry_failed=True)

    assert len(decoders.noted().read_text().splitlines()) == 1
    assert report.up_to_date
    assert "cat/bad.png" in failures(cache)


def test_a_mended_image_joins(remembered):
    photos, cache = remembered
    write_image(photos / "cat" / "bad.png", 777)

    report = build(photos, cache, workers=1)

    assert report.rendered == 1
    assert list(failures(cache)) == ["cat/link.png"]
    assert_as_rendered(cache, photos)


def test_a_file_that_could_not_be_read_is_tried_at_every_build(remembered, tmp_path):
    photos, cache = remembered
    write_image(tmp_path / "elsewhere.png", 888)

    report = build(photos, cache, workers=1, decoder=NOTING)

    assert report.rendered == 1
    assert list(failures(cache)) == ["cat/bad.png"]
    assert "cat/link.png" in paths(cache)
    assert_as_rendered(cache, photos)


def test_a_remembered_failure_counts_against_the_budget(remembered):
    photos, cache = remembered
    (photos / "cat" / "link.png").unlink()
    write_image(photos / "dog" / "new.png", 555)

    with pytest.raises(FailureBudgetExceeded, match="1 of 10"):
        build(photos, cache, workers=1, max_failures=0)


def test_a_higher_cap_tries_images_that_were_over_the_former_one(tmp_path):
    image_folder(tmp_path / "photos", count=2)
    write_image(tmp_path / "photos" / "cat" / "large.png", 9, 400, 500)
    small = TINY | {"decode": {"max_megapixels": 0.1}}
    build(tmp_path / "photos", tmp_path / "cache", small, workers=1)
    assert "over the cap of 0.1 Mpx" in failures(tmp_path / "cache")["cat/large.png"][1]

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert report.rendered == 1
    assert report.failures == []
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")
