"""The command that says whether a cache is worth it, before there is one; loaded by `cli` when named."""

import sys
import time
from pathlib import Path

import click

from preprocess import augment
from preprocess.commands import FOLDER, RECIPE, SET, say


@click.command()
@click.argument("source", type=FOLDER)
@click.argument("cache", type=FOLDER, required=False)
@RECIPE
@SET
@click.option("--steps-per-s", type=float, help="Steps a second of your model; unless given, a ResNet-18 is timed.")
@click.option("--batch-size", type=int, default=256, show_default=True, help="Images a training step.")
@click.option("--seconds", type=float, default=60, show_default=True, help="Time that all of it should take.")
@click.option("--device", default="auto", show_default=True, help="That builds: auto, cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def bench(
    source: Path,
    cache: Path | None,
    recipe: Path | None,
    overrides: tuple[str, ...],
    steps_per_s: float | None,
    batch_size: int,
    seconds: float,
    device: str,
    as_json: bool,
) -> None:
    """Say in a minute whether a cache of SOURCE is worth it. Keeps nothing.

    Builds 2,000 images in a temporary folder and compares: ImageFolder with its best num_workers, the cache cold and
    warm, and which part of a training step each makes you wait. Says how big the cache gets and how long it takes.

    CACHE says which disk to measure; if it is there, it is measured itself, and only read.

    \b
    decant bench photos
    decant bench photos cache --steps-per-s 4.5
    """
    augment.library(without_torch=True)
    from preprocess.verdict.appraisal import appraise

    began = time.monotonic()
    try:
        verdict = appraise(
            source,
            cache,
            recipe,
            overrides=overrides,
            steps_per_s=steps_per_s,
            batch_size=batch_size,
            seconds=seconds,
            device=device,
            progress=lambda text: click.echo(f"{time.monotonic() - began:5.1f} s  {text}", err=True),
        )
    except KeyboardInterrupt:
        click.echo("decant: interrupted; the temporary folder is removed", err=True)
        sys.exit(130)
    say(verdict.to_json() if as_json else str(verdict))
