"""A report in words and as JSON."""

import json

import pytest

from preprocess.report import BuildReport, in_units


def report(**changes):
    values = {
        "cache": "/data/cache",
        "snapshot": "000003",
        "samples": {"train": 1_281_167, "val": 50_000},
        "variants": {"train": 4, "val": 1},
        "classes": 1000,
        "rendered": 12,
        "reused": 5_174_656,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "seconds": {"scan": 1.5, "render": 600.25},
        "cache_bytes": 3 << 40,
    }
    return BuildReport(**(values | changes))


def failure(path, reason):
    return {"path": path, "stage": "decode", "reason": reason}


def test_a_build_in_words():
    assert str(report()).splitlines() == [
        "built snapshot 000003 of /data/cache",
        "  samples    train 1,281,167 x 4 variants, val 50,000, 1000 classes",
        "  variants   12 rendered, 5,174,656 reused",
        "  mean, std  [0.4850, 0.4560, 0.4060], [0.2290, 0.2240, 0.2250]",
        "  time       scan 1.5 s, render 600.2 s",
        "  on disk    3.0 TiB",
        "",
        "To train from it:",
        "    from loaders import CachedDataset",
        "    from torch.utils.data import DataLoader",
        "    loader = DataLoader(CachedDataset('/data/cache', split='train'), batch_size=256, shuffle=True)",
    ]


def test_nothing_to_do_in_words():
    lines = str(report(up_to_date=True)).splitlines()

    assert lines[0] == "up to date: snapshot 000003 of /data/cache"
    assert not any("rendered" in line for line in lines)


def test_classes_are_shown_first_and_last_with_their_images():
    few, many = {"cat": 1200, "dog\n": 0}, {f"{i:03d}": i for i in range(1000)}

    assert "  classes    cat 1,200, 'dog\\n' 0" in str(report(class_counts=few)).splitlines()
    assert "  classes    000 0, 001 1, 002 2, …, 998 998, 999 999" in str(report(class_counts=many)).splitlines()
    assert "  classes    cat 1,200, 'dog\\n' 0" in str(report(class_counts=few, dry_run=True)).splitlines()


@pytest.mark.parametrize("dry_run", [False, True])
def test_class_ids_that_shift_are_told_in_the_first_line(dry_run):
    shift = "class ids shift: 'cat' 0 -> 1"

    lines = str(report(shift=shift, departures=["else", shift], dry_run=dry_run)).splitlines()

    assert lines[0] == shift
    assert "  note       else" in lines
    assert not any(shift in line for line in lines[1:])


def test_without_labels_there_is_no_training_loop_but_how_to_give_some():
    text = " ".join(str(report(unlabelled=["train"], samples={"train": 9, "val": 3})).split())

    assert "To train from it" not in text
    assert "The images of split 'train' have no labels: each is -1" in text
    assert "into a folder for each class" in text
    assert "CachedDataset('/data/cache', split='train', targets=…)" in text


def test_the_training_loop_is_for_a_split_with_labels():
    def loader(**changes):
        return report(**changes).loading_lines()[-1]

    assert "split='train'" in loader(unlabelled=["test"], samples={"test": 9, "train": 3})
    assert "split='val'" in loader(unlabelled=["test"], samples={"test": 9, "val": 3})
    assert "split='test'" in loader(unlabelled=["test"], samples={"test": 9})


def test_what_could_be_freed_is_said_only_where_there_is_some():
    assert "decant gc would free 1.5 GiB" in str(report(reclaimable_bytes=3 << 29))
    assert "gc" not in str(report())


def test_a_dry_run_in_words():
    text = str(report(dry_run=True, peak_bytes=2 << 30, free_bytes=3 << 30, estimated_s=61.7))

    assert text.splitlines()[0] == "dry run, nothing was written to /data/cache"
    assert "12 to render, 5,174,656 in the cache already" in text
    assert "2.0 GiB more at its peak, 3.0 GiB free: fits" in text
    assert "about 62 s" in text
    assert "DOES NOT FIT" in str(report(dry_run=True, peak_bytes=4 << 30, free_bytes=3 << 30))


def test_failures_are_grouped_by_reason_the_commonest_first():
    failures = [failure("a.jpg", "empty file"), *(failure(f"{i}.jpg", "cut") for i in range(3))]

    lines = str(report(failures=failures)).splitlines()

    start = lines.index("  failed     4 images were left out:")
    assert lines[start + 1 : start + 3] == ["    0.jpg and 2 more: decode: cut", "    a.jpg: decode: empty file"]


def test_many_reasons_are_cut_short_and_the_rest_counted():
    text = str(report(failures=[failure(f"{i}.jpg", f"reason {i}") for i in range(13)]))

    assert "    9.jpg: decode: reason 9" in text
    assert "10.jpg" not in text
    assert "and 3 more reasons (all of them with --json)" in text


def test_notes_come_last_before_the_python():
    lines = str(report(departures=["first", "second"])).splitlines()

    assert lines[lines.index("To train from it:") - 3 :][:2] == ["  note       first", "  note       second"]


def test_json_has_every_field():
    values = json.loads(report(failures=[failure("ä\n.jpg", "x")]).to_json())

    assert set(values) == set(BuildReport.__dataclass_fields__)
    assert values["failures"] == [{"path": "ä\n.jpg", "stage": "decode", "reason": "x"}]


def test_the_printed_python_is_python_whatever_the_cache_is_called():
    for name in ("it's", 'a"b', "back\\slash", "new\nline", "b\udcffd"):
        compile("\n".join(report(cache=name).loading_lines()), "printed", "exec")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (1 << 50, "1024.0 TiB")],
)
def test_bytes_for_a_person(count, text):
    assert in_units(count) == text


def test_what_workers_were_at_and_the_advice_come_with_a_build():
    told = report(stages={"read": 1.0, "decode": 6.0, "sync": 1.0, "write": 0.0}, advice="Bound by " + "words " * 30)
    lines = str(told).splitlines()

    assert "  workers at decode 75%, read 12%, sync 12%" in lines
    assert lines[-5].startswith("    loader = ")
    assert "".join(lines[-3:]).startswith("Bound by words ")
    assert max(map(len, lines[-3:])) <= 80
