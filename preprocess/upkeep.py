"""The commands that keep a cache sound and small, each one call of a library function; loaded by `cli` when named."""

import sys
from pathlib import Path

import click

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
