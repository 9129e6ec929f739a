# SPDX-License-Identifier: Apache-2.0
"""The command `xsvggt`: its commands, and how signals and errors end them."""

from __future__ import annotations

import logging
import os
import select
import sys
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from xsvggt_ros.commands.evaluate import app as evaluate
from xsvggt_ros.commands.evaluate import compare
from xsvggt_ros.commands.on_topics import demo, replay
from xsvggt_ros.commands.reconstruct import reconstruct
from xsvggt_ros.commands.terminal import OptionFormatter, console, errors, in_options
from xsvggt_ros.commands.training import average, convert, synthesize, train
from xsvggt_ros.errors import XsvggtError, first_line
from xsvggt_ros.installation import missing_extra
from xsvggt_ros.process import INTERRUPTED, interruptible, wait_passively


def doctor(
    ros: Annotated[bool, typer.Option(help="Also check what the node needs.")] = True,
) -> None:
    """Show what is installed, what is missing, and what to do about it."""
    from xsvggt_ros.doctor import examine

    findings = examine(ros=ros)
    for finding in findings:
        mark = "[red]✘[/]" if finding.fault else "[yellow]![/]" if finding.remedy else "[green]✔[/]"
        console.print(f"{mark} [bold]{finding.subject}[/]: ", end="")
        console.print(finding.state, markup=False, highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"    → {finding.remedy}", style="yellow", markup=False, soft_wrap=True)
    if any(finding.fault for finding in findings):
        raise typer.Exit(1)


COMMANDS = (reconstruct, demo, replay, compare, synthesize, train, convert, average, doctor)


class ReadableErrors(TyperGroup):
    """Turns errors raised on purpose into one sentence and exit code 1, and signals into 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; `--debug` lets the traceback through."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except KeyboardInterrupt as signalled:
            errors.print("xsvggt: interrupted", style="bold red")
            raise typer.Exit(INTERRUPTED) from signalled
        except XsvggtError as error:
            self._fail(ctx, str(error), error)
        except ModuleNotFoundError as error:
            text = missing_extra(error, ctx.invoked_subcommand or "")
            self._fail(ctx, text or _unforeseen(error), error)
        except Exception as error:
            # Typer ends commands by exceptions of its own click, or of the installed one.
            if type(error).__module__.startswith(("typer", "click")):
                raise
            if isinstance(error, BrokenPipeError):
                _end_if_output_is_closed(error)
            self._fail(ctx, _unforeseen(error), error)

    def _fail(self, ctx: Any, text: str, error: Exception) -> NoReturn:
        """Print what went wrong in one sentence, and end; `--debug` lets the error through."""
        if ctx.params.get("debug"):
            raise error
        told = in_options(text, _options_of(ctx))
        errors.print(
            f"xsvggt: {told}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from error


def _end_if_output_is_closed(error: BrokenPipeError) -> None:
    """End quietly where whoever reads the output has left, as `head` does.

    The output goes nowhere then, since flushing at exit would fail again and print a traceback.
    """
    closed = [stream for stream in (sys.stdout, sys.stderr) if _reader_has_left(stream)]
    for stream in closed:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
    if closed:
        raise typer.Exit(1) from error


def _reader_has_left(stream: IO[str]) -> bool:
    poll = select.poll()
    try:
        poll.register(stream, select.POLLOUT)
    except (OSError, ValueError):  # no file of the system's
        return False
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _unforeseen(error: Exception) -> str:
    return (
        f"unexpected {type(error).__name__}: {first_line(error)}; this is a fault of the program: "
        "please report it with what `xsvggt --debug` says"
    )


def _options_of(ctx: Any) -> set[str]:
    """Return the options of the command that was called, or of all its subcommands."""
    command = ctx.command.commands.get(ctx.invoked_subcommand)
    own = getattr(command, "commands", {"": command} if command else {}).values()
    return {name for each in own for option in each.params for name in option.opts}


app = typer.Typer(
    cls=ReadableErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Streaming 3D reconstruction from images, with a compressed KV cache.",
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(evaluate, name="evaluate")


def _print_version(asked: bool) -> None:
    if asked:
        from xsvggt_ros.installation import version

        console.print(f"xsvggt {version()}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
) -> None:
    """Set up threads and logging for all commands."""
    wait_passively()
    from rich.logging import RichHandler

    handler = RichHandler(console=errors, show_path=debug, show_time=debug)
    handler.setFormatter(OptionFormatter(_options_of(ctx)))
    level = logging.DEBUG if debug else logging.WARNING
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("xsvggt_ros").setLevel(level)


if __name__ == "__main__":
    app(prog_name="xsvggt")
