"""The commands, each one call of a library function; loaded by `cli` when named."""

import os
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cache_store.durable import storage_error
from preprocess import augment


class _Place(click.Path):
    """A path. An empty one is a variable of the shell that is not set, and never the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("a path expected, found an empty text; is a variable of the shell not set?", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = _Place(path_type=Path)

RECIPE = click.option("--recipe", type=FOLDER, help="YAML file; without it the cache's own, or the default.")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one key of the recipe, e.g. size=160."
)
STRICT = click.option("--strict", is_flag=True, help="Commit nothing if a single image fails, or class ids shift.")
MAX_FAILURES = click.option(
    "--max-failures", metavar="N|N%", help="Images that may fail; unless given the larger of 1% and 10."
)
"""Options of several commands."""


def say(text: str) -> None:
    """Results go to stdout; a file name that is not UTF-8 must not break the sentence.

    Whoever reads them may leave early, as head does: what was done counts, and the exit code tells of it.

    Raises
    ------
    StorageError : they cannot be written there, as on a full disk
    """
    try:
        click.echo(text.encode("utf-8", "backslashreplace"))
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # the interpreter flushes once more as it ends
        os.close(nowhere)
    except OSError as error:
        raise storage_error("write", "standard output", error) from error


def _say_aside(text: str) -> None:
    """What is no result goes to stderr."""
    click.echo(text.encode("utf-8", "backslashreplace"), err=True)


@click.command()
@click.argument("source", type=FOLDER)
@click.option("-o", "--output", type=FOLDER, default="recipe.yaml", show_default=True, help="File to write.")
@click.option("--size", metavar="N|HxW", help="Height and width to store, such as 160 or 160x224.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found and chosen as JSON.")
def init(source: Path, output: Path, size: str | None, force: bool, as_json: bool) -> None:
    """Look at the images in SOURCE and write a recipe for them, with the reason of every choice.

    Reads headers only, of 2,000 images at most.

    \b
    decant init photos
    decant init photos -o small.yaml --size 128
    """
    if size is not None and not re.fullmatch(r"[0-9]+(x[0-9]+)?", size):
        raise click.UsageError(f"--size: a number like 160, or HEIGHTxWIDTH like 160x224, expected, found {size!r}")
    augment.library(without_torch=True)
    from preprocess.proposal import propose_recipe

    sides = [int(side) for side in size.split("x")] if size else []
    proposal = propose_recipe(source, (sides[0], sides[-1]) if sides else None)
    proposal.write(output, overwrite=force)
    say(proposal.to_json() if as_json else str(proposal))


@click.command()
@click.argument("source", type=FOLDER)
@click.argument("cache", type=FOLDER)
@RECIPE
@SET
@click.option("--workers", type=int, help="Processes; unless given, one for each processor, or for the GPU.")
@click.option("--device", default="auto", show_default=True, help="auto (as the cache is), cpu or cuda.")
@click.option("--limit", type=int, help="Only the first N images of each split, into a new cache.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, how long it takes and how big it gets.")
@STRICT
@MAX_FAILURES
@click.option("--allow-shrink", is_flag=True, help="Permit a build that drops more than half of a split.")
@click.option("--rerender", is_flag=True, help="Make new tensors where this environment renders other pixels.")
@click.option("--retry-failed", is_flag=True, help="Try images again that are known not to decode or render.")
@click.option(
    "--refresh-stats", is_flag=True, help="Normalise by the images as they are now; nothing is decoded again."
)
@click.option("--checksum", is_flag=True, help="Hash every file, whatever its time stamps say.")
@click.option("--shard-mib", type=float, default=32, show_default=True, help="Size of a shard of new tensors.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def build(
    source: Path,
    cache: Path,
    recipe: Path | None,
    overrides: tuple[str, ...],
    workers: int | None,
    device: str,
    limit: int | None,
    dry_run: bool,
    strict: bool,
    max_failures: str | None,
    allow_shrink: bool,
    rerender: bool,
    retry_failed: bool,
    refresh_stats: bool,
    checksum: bool,
    shard_mib: float,
    as_json: bool,
) -> None:
    """Bring CACHE up to date with the images in SOURCE.

    Decodes, augments and normalises what the cache lacks and publishes a snapshot; training that runs on the former
    one is not disturbed. Interrupted, it goes on where it was.

    \b
    decant build photos cache
    decant build photos cache --recipe recipe.yaml --set size=160
    """
    from preprocess.progress import progress_bar

    augment.library(without_torch=True)
    from preprocess.builder import build as build_cache

    with progress_bar() as progress:
        report = build_cache(
            source,
            cache,
            recipe,
            overrides=overrides,
            workers=workers,
            device=device,
            limit=limit,
            dry_run=dry_run,
            strict=strict,
            max_failures=max_failures,
            allow_shrink=allow_shrink,
            rerender=rerender,
            retry_failed=retry_failed,
            refresh_stats=refresh_stats,
            checksum=checksum,
            shard_mib=shard_mib,
            progress=progress,
            announce=progress.say,
        )
    say(report.to_json() if as_json else str(report))
    if dry_run and report.peak_bytes > report.free_bytes:
        sys.exit(7)


@click.command()
@click.argument("source", type=FOLDER)
@click.option("--recipe", type=FOLDER, help="YAML file; without it the default.")
@SET
@click.option("--split", help="Split to draw; the recipe's first unless given.")
@click.option("-o", "--output", type=FOLDER, default="preview.png", show_default=True, help="PNG file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def preview(
    source: Path, recipe: Path | None, overrides: tuple[str, ...], split: str | None, output: Path, as_json: bool
) -> None:
    """Draw what a recipe makes of 16 images of SOURCE, each beside its variants. Makes no cache.

    The pixels are those that a build would store, before they are normalised.

    \b
    decant preview photos --recipe recipe.yaml -o look.png
    decant preview photos --set size=96 --split val
    """
    augment.library(without_torch=True)
    from preprocess.trial import preview as try_out

    report = try_out(source, recipe, output, overrides=overrides, split=split)
    say(report.to_json() if as_json else str(report))


@click.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True, metavar="[SOURCE] CACHE")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def status(folders: tuple[Path, ...], as_json: bool) -> None:
    """Say what changed in SOURCE since CACHE was built, and what a build would do and why. Writes nothing.

    Without SOURCE: the folder that CACHE was built from.

    \b
    decant status photos cache
    decant status cache --json
    """
    if len(folders) > 2:
        raise click.UsageError(f"SOURCE and CACHE expected, found {len(folders)} folders")
    augment.library(without_torch=True)
    from preprocess.survey import status as look

    *source, cache = folders
    report = look(source[0] if source else None, cache)
    say(report.to_json() if as_json else str(report))


@click.command()
@click.argument("source", type=FOLDER)
@click.argument("cache", type=FOLDER)
@RECIPE
@SET
@click.option("--workers", type=int, help="Processes; one for each processor unless given.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@STRICT
@MAX_FAILURES
@click.option("--settle", type=float, default=2, show_default=True, help="Seconds without a change before a build.")
@click.option("--poll", type=float, default=1, show_default=True, help="Seconds between two looks at SOURCE.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document, on one line, for each build.")
def watch(
    source: Path,
    cache: Path,
    recipe: Path | None,
    overrides: tuple[str, ...],
    workers: int | None,
    device: str,
    strict: bool,
    max_failures: str | None,
    settle: float,
    poll: float,
    as_json: bool,
) -> None:
    """Build CACHE again whenever SOURCE has come to rest, until Ctrl-C or SIGTERM; a line for each build.

    Looks at names, sizes and time stamps, so that network folders are watched as well. A build that fails says why,
    and the next change is waited for.

    \b
    decant watch photos cache
    decant watch /mnt/incoming cache --recipe recipe.yaml --settle 30
    """
    from preprocess.progress import progress_bar

    augment.library(without_torch=True)
    from preprocess.builder import build as build_cache
    from preprocess.report import BuildReport
    from preprocess.watching import Outcome
    from preprocess.watching import watch as watch_folder

    def rebuild() -> BuildReport:
        with progress_bar(transient=True) as progress:
            return build_cache(
                source,
                cache,
                recipe,
                overrides=overrides,
                workers=workers,
                device=device,
                strict=strict,
                max_failures=max_failures,
                progress=progress,
            )

    def tell(outcome: Outcome) -> None:
        now = datetime.now().astimezone()
        say(outcome.to_json(now) if as_json else f"{now:%F %T}  {outcome}")

    _say_aside(f"watching {source}; Ctrl-C ends it")
    watch_folder(
        source,
        rebuild,
        tell,
        recipe=recipe,
        settle_s=settle,
        poll_s=poll,
    )


@click.command()
@click.argument("cache", type=FOLDER)
@click.argument("sample", nargs=-1, metavar="[INDEX|PATH]...")
@click.option("--split", help="Split to show; the first unless given.")
@click.option("-o", "--output", type=FOLDER, help="PNG file to draw the samples into, all variants side by side.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(cache: Path, sample: tuple[str, ...], split: str | None, output: Path | None, as_json: bool) -> None:
    """Say what CACHE holds; of samples by INDEX or PATH, where they come from and what is stored of them.

    PATH is relative to SOURCE, as in `CachedDataset.samples`. A number is always an INDEX: write ./7 for a file of the
    name 7.

    \b
    decant show cache
    decant show cache 0 5 --split val
    decant show cache val/cat/0001.jpg
    decant show cache -- -1            the last sample
    decant show cache -o look.png
    """
    from preprocess.show import show as show_cache

    chosen = [int(one) if re.fullmatch(r"-?[0-9]+", one) else one for one in sample]
    say(show_cache(cache, chosen, split, output, as_json=as_json))


@click.command()
@click.argument("cache", type=FOLDER)
@click.option("--source", type=FOLDER, help="Folder of images; the one that CACHE was built from unless given.")
@click.option("-o", "--output", type=FOLDER, required=True, help="HTML file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written, and what stands out, as JSON.")
def report(cache: Path, source: Path | None, output: Path, as_json: bool) -> None:
    """Write one page about CACHE: images of each class beside their sources, balance, sizes, failures, leakage.

    The page loads nothing from elsewhere and runs no script: it can be mailed as it is.

    \b
    decant report cache -o report.html
    """
    augment.library(without_torch=True)
    from preprocess.page import write_report

    written = write_report(cache, output, source)
    say(written.to_json() if as_json else str(written))


@click.command()
@click.argument("cache", type=FOLDER, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def doctor(cache: Path | None, as_json: bool) -> None:
    """Check this installation, what it can decode, and (if given) CACHE and the file system it lies on.

    CACHE need not be there yet. Its file system is tried in a hidden folder that is removed again: renaming, locks,
    maps, flushing. Exit code 1 if something needs mending.

    \b
    decant doctor
    decant doctor /mnt/share/cache
    """
    from preprocess.doctor import doctor as examine

    report = examine(cache)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)
