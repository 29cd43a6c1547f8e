"""How errors become messages and exit codes, and what an interrupt does."""

import os
import signal

import pytest

from cache_store import errors as store_errors
from preprocess import cli
from preprocess import errors as build_errors
from preprocess.errors import SourceError
from preprocess.progress import _Lines
from preprocess.report import BuildReport


@pytest.fixture
def decant(monkeypatch, capsys, tmp_path):
    """`decant build` in this process, with a library that does as it is told."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(does, *options):
        monkeypatch.setattr("preprocess.builder.build", does)
        monkeypatch.setattr("sys.argv", ["decant", "build", str(tmp_path), str(tmp_path / "cache"), *options])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        shown = capsys.readouterr()
        return caught.value.code, shown.out, shown.err

    return run


def raising(error):
    def build(*_, **__):
        raise error

    return build


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (build_errors.RecipeError("size: what?"), 2),
        (build_errors.UsageError("what?"), 2),
        (build_errors.FailureBudgetExceeded("too many"), 3),
        (build_errors.ShrinkRefused("too few"), 3),
        (build_errors.PixelsWouldDiffer("other pixels"), 8),
        (build_errors.DecoderUntrusted("wrong pixels"), 8),
        (build_errors.WorkerError("no worker"), 1),
        (store_errors.NotFoundError("not there"), 4),
        (store_errors.UsageError("what?"), 2),
        (store_errors.LockedError("locked"), 5),
        (store_errors.IntegrityError("damaged"), 6),
        (store_errors.FormatError("too new"), 6),
        (store_errors.StorageError(28, "the disk is full"), 7),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_ours_is_one_message_and_its_code(decant, error, code):
    found, out, err = decant(raising(error))

    assert found == code
    assert out == ""
    assert err == f"decant: {error}\n"


def test_every_error_class_has_a_code_that_the_design_knows():
    classes = [
        value
        for module in (build_errors, store_errors)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception) and value is not SourceError
    ]

    assert len(classes) >= 14
    assert {value.exit_code for value in classes} == set(range(1, 9))


def test_a_bug_of_ours_shows_its_traceback(decant):
    with pytest.raises(ZeroDivisionError):
        decant(raising(ZeroDivisionError("a bug")))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), KeyboardInterrupt("with words")])
def test_an_interrupt_is_130_and_says_that_nothing_is_lost(decant, error):
    code, out, err = decant(raising(error))

    assert (code, out) == (130, "")
    assert err.strip() == "decant: interrupted; finished shards are kept, the same command goes on from there"


def test_sigterm_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt):
        cli._stop(signal.SIGTERM, None)


def test_sigterm_is_handled_while_a_command_runs(monkeypatch, decant):
    handlers = {}
    monkeypatch.setattr(signal, "signal", lambda number, handler: handlers.update({number: handler}))

    def build(*_, **__):
        handlers[signal.SIGTERM](signal.SIGTERM, None)

    assert decant(build)[0] == 130


def test_success_is_0_and_the_report_goes_to_stdout(decant):
    report = BuildReport("cache", snapshot="000001", samples={"train": 3})

    assert decant(lambda *_, **__: report) == (0, str(report) + "\n", "")
    assert decant(lambda *_, **__: report, "--json") == (0, report.to_json() + "\n", "")


def test_a_dry_run_that_does_not_fit_is_7(decant):
    report = BuildReport("cache", dry_run=True, peak_bytes=2, free_bytes=1)

    code, out, _ = decant(lambda *_, **__: report, "--dry-run")

    assert code == 7
    assert "DOES NOT FIT" in out


def test_options_reach_the_library(decant, tmp_path):
    given = {}

    def build(*arguments, **options):
        given.update(options, arguments=arguments)
        return BuildReport("cache")

    decant(
        build,
        *("--recipe", "r.yaml", "--set", "size=8", "--set", "seed=2", "--workers", "3", "--device", "cpu"),
        *("--limit", "5", "--max-failures", "2%", "--allow-shrink", "--rerender", "--retry-failed", "--checksum"),
        *("--shard-mib", "0.5"),
    )

    assert [str(argument) for argument in given.pop("arguments")] == [str(tmp_path), str(tmp_path / "cache"), "r.yaml"]
    assert list(given.pop("overrides")) == ["size=8", "seed=2"]
    assert type(given.pop("progress")) is _Lines  # stderr is no terminal here
    flags = {"allow_shrink", "rerender", "retry_failed", "checksum"}
    assert {name for name, value in given.items() if value is True} == flags
    expected = {"workers": 3, "device": "cpu", "limit": 5, "max_failures": "2%", "shard_mib": 0.5, "dry_run": False}
    assert {name: given[name] for name in expected} == expected


def test_strict_is_told_to_the_build(decant):
    given = {}

    decant(lambda *_, **options: given.update(options) or BuildReport("cache"), "--strict", "--max-failures", "5%")

    assert (given["strict"], given["max_failures"]) == (True, "5%")


def test_a_watch_builds_with_its_options(monkeypatch, tmp_path, capsys):
    given = {}

    def watch(source, rebuild, tell, **options):
        given.update(options, source=source)
        tell(rebuild().snapshot)
        raise KeyboardInterrupt

    def build(*arguments, **options):
        given.update(options, arguments=arguments)
        return BuildReport("cache", snapshot="000007")

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("preprocess.watching.watch", watch)
    monkeypatch.setattr("preprocess.builder.build", build)
    command = f"watch {tmp_path} c --recipe r.yaml --set size=8 --workers 3 --device cpu --strict --settle 9 --poll 0.5"
    monkeypatch.setattr("sys.argv", ["decant", *command.split()])
    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == 130
    assert capsys.readouterr().out.endswith("  000007\n")
    assert given.pop("source") == tmp_path
    assert str(given.pop("recipe")) == "r.yaml"
    assert [str(argument) for argument in given.pop("arguments")] == [str(tmp_path), "c", "r.yaml"]
    assert type(given.pop("progress")) is _Lines
    assert given == {
        "settle_s": 9,
        "poll_s": 0.5,
        "overrides": ("size=8",),
        "workers": 3,
        "device": "cpu",
        "strict": True,
        "max_failures": None,
    }


def test_memory_that_is_short_is_told_in_a_line(decant):
    code, _, err = decant(raising(MemoryError()))
    assert (code, err) == (1, "decant: not enough memory (ulimit -v says what this shell allows)\n")


def test_caps_of_the_shell_on_what_opencv_decodes_are_not_taken_over(decant, monkeypatch):
    """OpenCV aborts at the first of these values, and the second would refuse the pictures of a probe."""
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1e9")
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_WIDTH", "8")
    seen = []
    decant(lambda *_, **__: seen.extend(os.environ) or BuildReport("cache"))
    assert "PATH" in seen
    assert not [name for name in seen if name.startswith("OPENCV_IO_MAX_IMAGE_")]


def test_what_asks_to_end_is_heard_unless_it_was_ignored_on_purpose(monkeypatch):
    """As nohup does with SIGHUP."""
    installed = {}
    ignored = {signal.SIGHUP: signal.SIG_IGN}
    monkeypatch.setattr(signal, "getsignal", lambda number: ignored.get(number, signal.SIG_DFL))
    monkeypatch.setattr(signal, "signal", installed.__setitem__)
    cli._settle()
    assert installed == {signal.SIGTERM: cli._stop, signal.SIGUSR1: cli._stop}
    ignored.clear()
    cli._settle()
    assert installed[signal.SIGHUP] is cli._stop


def test_a_terminal_that_is_gone_hides_no_interrupt(decant):
    """What draws a bar fails on the way out, and the message cannot be shown either."""

    def build(*_, **__):
        try:
            cli._stop(signal.SIGHUP, None)
        finally:
            raise OSError(5, "Input/output error")

    assert decant(build)[0] == 130
