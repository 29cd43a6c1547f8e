"""The `decant` command. Commands are loaded when called, so that `decant --help` answers at once."""

import contextlib
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Any

import click

_COMMANDS = {
    "init": ("preprocess.commands:init", "Look at the images in SOURCE and write a recipe for them."),
    "bench": ("preprocess.bench:bench", "Say in a minute whether a cache is worth it."),
    "build": ("preprocess.commands:build", "Bring CACHE up to date with the images in SOURCE."),
    "preview": ("preprocess.commands:preview", "Draw what a recipe makes of a few images, without a cache."),
    "status": ("preprocess.commands:status", "Say what changed in SOURCE, and what a build would do."),
    "watch": ("preprocess.commands:watch", "Build again whenever SOURCE has come to rest."),
    "show": ("preprocess.commands:show", "Say what a cache holds, and draw samples of it."),
    "report": ("preprocess.commands:report", "Write one page about a cache: images, numbers, failures."),
    "log": ("preprocess.upkeep:log", "List the snapshots of a cache."),
    "rollback": ("preprocess.upkeep:rollback", "Make an older snapshot the one in force."),
    "verify": ("preprocess.upkeep:verify", "Read every byte of a cache, and name what is damaged."),
    "repair": ("preprocess.upkeep:repair", "Bring back what verify found damaged."),
    "gc": ("preprocess.upkeep:gc", "Remove what the newest snapshots do not need."),
    "doctor": ("preprocess.commands:doctor", "Check this installation, and what it can decode."),
}


_STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What asks to end, as Ctrl-C does: a service manager, a terminal that is closed, a scheduler that wants the node."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            ctx.fail(f"no command {args[0]!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="decant-cache", prog_name="decant")
def decant() -> None:
    """Decode once, pour forever: cache a folder of images as training-ready tensors.

    \b
    decant build photos cache      decode, augment, normalise into a Zarr store
    decant show cache -o look.png  see what is in it
    """


def main() -> None:
    """Entry point: errors of ours become one message and their exit code, never a traceback."""
    _settle()
    try:
        result = decant.main(prog_name="decant", standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Abort:
        _interrupted()
    except KeyboardInterrupt:
        _interrupted()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        if _is_stopped:  # such as a bar that has no terminal any more
            _interrupted()
        code = getattr(error, "exit_code", None)
        if isinstance(error, MemoryError):
            error, code = MemoryError("not enough memory (ulimit -v says what this shell allows)"), 1
        if code is None:
            raise  # our bug: the traceback is what a report needs
        click.echo(f"decant: {error}", err=True)
        sys.exit(code)


def _settle() -> None:
    """Take from the shell what may be taken, and no more."""
    global _is_stopped  # noqa: PLW0603
    _is_stopped = False
    for stopping in _STOPPING:
        if signal.getsignal(stopping) is not signal.SIG_IGN:  # nohup has SIGHUP ignored, and means it
            signal.signal(stopping, _stop)
    # OpenCV reads these once, aborts at one that is no number, and would refuse the pictures that a probe decodes;
    # decode.max_megapixels is the cap here.
    for name in [name for name in os.environ if name.startswith("OPENCV_IO_MAX_IMAGE_")]:
        del os.environ[name]
    for number, name in enumerate(("stdin", "stdout", "stderr")):  # closed, as by `2>&-`
        if getattr(sys, name) is None:
            # The next file that is opened would get the number, and what libraries print would go into it.
            while (opened := os.open(os.devnull, os.O_RDWR)) < number:
                pass
            setattr(sys, name, os.fdopen(opened, "w" if number else "r", closefd=False))


def _stop(number: int, frame: FrameType | None) -> None:
    global _is_stopped  # noqa: PLW0603
    _is_stopped = True
    raise KeyboardInterrupt


_is_stopped = False


def _interrupted() -> None:
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    kept = "; finished shards are kept, the same command goes on from there" if command in ("build", "watch") else ""
    with contextlib.suppress(OSError):  # a terminal that was closed
        click.echo(f"decant: interrupted{kept}", err=True)
    sys.exit(130)
