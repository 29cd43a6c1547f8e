"""Mistakes of users: a table for behaviour.py. Words of a command are parted by |, as names hold blanks."""

from typing import Any

_STEP = "splits: {train: {transforms: [%s]}}"
FILES: dict[str, Any] = {
    "brackets.yaml": "size: [224\nsplits: {",
    "list.yaml": "- a\n",
    "twice.yaml": "size: 8\nsize: 9\n",
    "object.yaml": "size: !!python/object:os.system {}",
    "key.yaml": "szie: 8\n",
    "value.yaml": "size: big\n",
    "transform.yaml": _STEP % "{HorizontalFlipp: {}}",
    "argument.yaml": _STEP % "{HorizontalFlip: {pp: 1}}",
    "range.yaml": _STEP % "{HorizontalFlip: {p: 7}}",
    "lambda.yaml": _STEP % "{Lambda: {}}",
    "mask.yaml": _STEP % "{MaskDropout: {}}",
    "shape.yaml": _STEP % "{Resize: {height: 8, width: 9}}",
    "middle.yaml": _STEP % "{Normalize: {}}, {HorizontalFlip: {}}",
    "few.yaml": "normalize: {mean: [123.675, 116, 103], std: [58, 57, 57]}",
    "levels.yaml": "decode: {levels: [9, 1]}",
    "texts/notes.txt": "",
}

COMMANDS = """
buidl|phö tos|new
--verison
build
build|phö tos|new|more
build|phö tos|new|--wrokers|2
build||new
build|nowhere|new
build|key.yaml|new
build|empty|new
build|texts|new
build|phö tos|key.yaml
build|phö tos|texts
build|phö tos|phö tos/new
build|phö tos|key.yaml/new
build|phö tos|cä che|--limit|2
build|phö tos|cä che|--device|torch-cpu
build|few|cä che
build|phö tos|damaged
build|phö tos|locked
build|broken|new|--strict|--workers|1
build|phö tos|new|--recipe|none.yaml
build|phö tos|new|--recipe|empty
build|phö tos|new|--workers|0
build|phö tos|new|--workers|many
build|phö tos|new|--max-failures|150%
build|phö tos|new|--shard-mib|-1
build|phö tos|new|--device|cud
init|phö tos|--size|big
init|phö tos|-o|key.yaml
init|phö tos|-o|nö where/r.yaml
watch|phö tos|new|--settle|-1
preview|phö tos|--split|vla
preview|phö tos|-o|p.jpg
preview|phö tos|-o|phö tos/p.png
status|lost
status|a|b|c
show|cä che|99
show|cä che|x
show|cä che|--split|vla
show|cut|0
show|cä che|-o|cä che/p.png
report|cä che
report|cä che|-o|r.pdf
report|nowhere|-o|r.html
rollback|cä che|7
gc|cä che|--keep|0
verify|cut
verify|damaged
verify|nowhere
repair|empty|cut
doctor|damaged
""".split("\n")[1:-1]
COMMANDS += [f"build|phö tos|new|--recipe|{name}" for name in FILES if name.endswith(".yaml")]
COMMANDS += [f"show|{folder}" for folder in ("nowhere", "texts", "key.yaml", "newer", "needy", "damaged")]
COMMANDS += [
    f"build|phö tos|new|--set|{setting}"
    for setting in "size size=[8 sise=8 splits.train.variants=0 splits.vla.variants=2 dtype=float31 normalize=imagnet "
    "seed=-1 classes=[a,a]".split()
]

SHELL = """
decant log 'cä che' > /dev/full
decant log 'cä che' >&-
decant log nowhere 2>&-
decant show 'cä che' --json | true
decant show 'nö where'
decant --version
""".split("\n")[1:-1]
"""Lines of bash, in which `decant` is a process of its own."""

CALLS = """
CachedDataset("nowhere")
CachedDataset("phö tos")
CachedDataset("damaged")
CachedDataset("newer")
CachedDataset("cut")[0]
CachedDataset("cä che", "val")
CachedDataset("cä che", snapshot="7")
CachedDataset("cä che", variant=4)
CachedDataset("cä che", dtype="float16")
CachedDataset("cä che", io="read")
CachedDataset("cä che", check="all")
CachedDataset("cä che", crop=999)
CachedDataset("cä che", crop_mode="left")
CachedDataset("cä che", targets=[1])
data[99]
data[True]
data[0:2]
data["x"]
data.set_epoch(-1)
data.normalizer()
ShardShuffleSampler([1])
ShardShuffleSampler(data, seed=-1)
ShardShuffleSampler(data, 2, 2)
ShardShuffleSampler(data).load_state_dict({"epoch": 3})
to_device([], "cpu", prefetch=0)
to_device([], "cpu", dtype=torch.int8)
open_cache("nowhere")
open_cache("cä che").split("val")
open_cache("cä che").image("train", 99)
Recipe(szie=8)
Recipe(size=0)
Recipe.of("nowhere")
Recipe.of("cä che").render("none.jpg", split="train")
Recipe.of("cä che").render(b"xx", split="train")
Recipe.of("cä che").render(b"xx", split="val")
build("phö tos", "new", 3)
build("phö tos", "new", {"size": 8, "splits": {}})
build("phö tos", "new", workers=-1)
build("phö tos", "new", stats=((9,), (0,)))
status("nowhere", "cä che")
repair("cä che", "nowhere")
preview("phö tos", split="val")
propose_recipe("empty")
""".split("\n")[1:-1]
