"""The commands that keep a cache sound and small, each one call of a library function; loaded by `cli` when named."""

import json
import sys
from pathlib import Path

import click

from preprocess import augment
from preprocess.commands import FOLDER, say
from preprocess.progress import bytes_bar


@click.command()
@click.argument("cache", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(cache: Path, as_json: bool) -> None:
    """Read every byte of CACHE and name what is damaged, by sample and file. Changes nothing.

    Exit code 6 if something is damaged: `decant repair` mends it.

    \b
    decant verify cache
    """
    from cache_store.verify import verify as verify_cache

    with bytes_bar("verify") as progress:
        report = verify_cache(cache, progress)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)


@click.command()
@click.argument("cache", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def log(cache: Path, as_json: bool) -> None:
    """List the snapshots of CACHE, newest first; * marks the one in force.

    \b
    decant log cache
    """
    from cache_store.snapshots import history, history_as_json

    entries = history(cache)
    lines = [str(entry) for entry in entries] or ["no snapshot yet"]
    say(history_as_json(entries) if as_json else "\n".join(lines))


@click.command()
@click.argument("cache", type=FOLDER)
@click.argument("snapshot")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def rollback(cache: Path, snapshot: str, as_json: bool) -> None:
    """Make SNAPSHOT the one in force: what is opened from now on, and what the next build starts from.

    Nothing is removed, and training that is running keeps what it has: `decant rollback` goes forth as well as back.

    \b
    decant rollback cache 000002
    """
    from cache_store.snapshots import rollback as roll_back

    before, now = roll_back(cache, snapshot)
    if as_json:
        say(json.dumps({"cache": str(cache), "snapshot": now, "before": before}, indent=2))
    else:
        say(f"{now} is in force" + (", as before" if before == now else f"; before it was {before or 'none'}"))


@click.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True, metavar="[SOURCE] CACHE")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def repair(folders: tuple[Path, ...], as_json: bool) -> None:
    """Bring CACHE back to what was committed, bit for bit; render again only what is damaged.

    SOURCE is the folder of images; without it the one that the last build used. Exit code 6 if damage is left.

    \b
    decant repair photos cache
    decant repair cache
    """
    if len(folders) > 2:
        raise click.UsageError("at most SOURCE and CACHE expected")
    augment.library(without_torch=True)
    from preprocess.mending import repair as repair_cache

    with bytes_bar("verify") as progress:
        report = repair_cache(folders[0] if len(folders) == 2 else None, folders[-1], progress=progress)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)


@click.command()
@click.argument("cache", type=FOLDER)
@click.option("--keep", type=int, default=1, show_default=True, help="How many of the newest snapshots stay.")
@click.option("--compact", is_flag=True, help="First write partly used shards anew, as a new snapshot.")
@click.option("--drop-unfinished", is_flag=True, help="Also remove what an interrupted build has finished.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def gc(cache: Path, keep: int, compact: bool, drop_unfinished: bool, as_json: bool) -> None:
    """Remove from CACHE what the newest snapshots do not need: older ones, their shards, leftovers of killed builds.

    The snapshot in force and those that somebody reads stay in any case.

    \b
    decant gc cache --keep 3
    decant gc cache --compact
    """
    from cache_store.gc import collect_garbage

    report = collect_garbage(cache, keep, compact=compact, drop_unfinished=drop_unfinished)
    say(report.to_json() if as_json else str(report))
