"""gpu-arbiterd: serve, and look after the configuration, the journal and the admin token."""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from gpuarbiter_server import __version__, config

_STDERR = 2
_EPILOG = """\
The configuration comes from the file, then the environment (GPU_ARBITER_…, nested with __), then --set;
the later wins. `gpu-arbiterd config schema` shows every key, `config show` what is in force.

examples:
  gpu-arbiterd serve                                   the GPUs that the driver shows
  gpu-arbiterd serve --set gpus=sim:2x24GiB            two simulated GPUs
  gpu-arbiterd serve --config /etc/gpu-arbiter.yaml
  gpu-arbiterd config validate --config new.yaml
  gpu-arbiterd journal inspect                         what a restart would go on with
  gpu-arbiterd token                                   what changes over HTTP need
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 1 for a problem at run time, 2 for bad usage or configuration."""
    parsed = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except config.ConfigError as error:
        print(f"gpu-arbiterd: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except BrokenPipeError:  # the reader has seen enough, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-arbiterd",
        description="GpuArbiter: grants leases on the GPUs of this machine over gRPC.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=os.environ.get("GPU_ARBITER_CONFIG"),
        help="the configuration file (YAML or JSON; default: GPU_ARBITER_CONFIG, or none)",
    )
    source.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, such as queue_limit=4; repeatable"
    )
    serve = commands.add_parser("serve", parents=[source], help="run the arbiter")
    serve.add_argument(
        "--log-level",
        action="append",
        default=[],
        metavar="LEVEL|MODULE=LEVEL",
        help="debug, info, warning or error; of a module alone (store=debug, events=warning); repeatable",
    )
    serve.set_defaults(run=_serve)
    token = commands.add_parser(
        "token",
        parents=[source],
        help="print the admin token, which changes over HTTP need",
        description="Prints the admin token, which changes over HTTP need; makes it where there is none yet. "
        "Call it as the arbiter's user, with the options and the environment of `gpu-arbiterd serve`: another "
        "configuration has another token.",
    )
    token.set_defaults(run=_token)
    _config_commands(commands.add_parser("config", help="show, check or migrate the configuration"), source)
    _journal_commands(commands.add_parser("journal", help="look at, check or shrink the journal"), source)
    return parser


def _config_commands(parser: argparse.ArgumentParser, source: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    show = commands.add_parser("show", parents=[source], help="print the configuration in force as YAML")
    show.set_defaults(run=_show)
    validate = commands.add_parser("validate", parents=[source], help="check the configuration; exit 2 when it is bad")
    validate.set_defaults(run=_validate)
    schema = commands.add_parser("schema", help="print the JSON schema of the configuration file")
    schema.set_defaults(run=_schema)
    migrate = commands.add_parser("migrate", help="turn an older file into today's YAML, on stdout")
    migrate.add_argument(
        "file", type=Path, metavar="OLD", help="the camelCase JSON of the arbiter, or the YAML of an earlier analyzer"
    )
    migrate.set_defaults(run=_migrate)


def _journal_commands(parser: argparse.ArgumentParser, source: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    # The directory is that of the configuration: --set journal.path=DIRECTORY names another.
    for name, what in (
        ("inspect", "show what is in it, beside a running arbiter too; exit 1 when it is damaged"),
        ("verify", "check it, beside a running arbiter too; exit 1 when it is damaged, with every problem"),
        ("compact", "take out what is too old and make the file smaller, while no arbiter runs"),
    ):
        command = commands.add_parser(name, parents=[source], help=what, description=f"{name}: {what}.")
        command.add_argument("--json", action="store_true", help="JSON for programs instead of text for people")
        command.set_defaults(run=_journal, command=name)


def _load(parsed: argparse.Namespace) -> config.Config:
    return config.load(Path(parsed.config) if parsed.config else None, os.environ, parsed.set)


def _serve(parsed: argparse.Namespace) -> int:
    from gpuarbiter_server import app
    from gpuarbiter_server.app import allocator
    from gpuarbiter_server.telemetry import logs

    _open_what_is_closed()
    parsed.set += _log_settings(parsed.log_level)
    settings = _load(parsed)
    allocator.keep_together()
    writer = logs.start()
    logs.configure(settings.log_level, settings.log_levels, settings.log_format)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(app.serve(settings, log_writer=writer, ready=_ready))
    except app.StartError as error:
        _say(f"gpu-arbiterd cannot start: {error}", sys.stderr)
        return 1
    finally:
        writer.close()
    return 0


def _open_what_is_closed() -> None:
    """Takes the places of standard streams that are not there: a socket or a file of ours must not get their numbers.

    Whatever writes to stderr would write into it, and libuv ends a process that closes such a number.
    """
    number = os.open(os.devnull, os.O_RDWR)
    while number <= _STDERR:
        number = os.dup(number)
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 -- for as long as we run
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def _ready(where: object) -> None:
    """Says where it serves. On a thread: whether anybody reads it decides nothing."""

    def say() -> None:
        with contextlib.suppress(OSError, ValueError):
            _say(f"gpu-arbiterd is ready: {where}")

    threading.Thread(target=say, name="ready", daemon=True).start()


def _log_settings(levels: Sequence[str]) -> list[str]:
    """What --log-level says, as --set has it."""
    everywhere = [f"log_level={json.dumps(level)}" for level in levels if "=" not in level]
    modules = dict(level.split("=", 1) for level in levels if "=" in level)
    return [*everywhere, *([f"log_levels={json.dumps(modules)}"] if modules else [])]


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's loop, where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _show(parsed: argparse.Namespace) -> int:
    _say(_load(parsed).to_yaml().rstrip())
    return 0


def _validate(parsed: argparse.Namespace) -> int:
    _load(parsed)
    _say("the configuration is valid")
    return 0


def _schema(_parsed: argparse.Namespace) -> int:
    _say(json.dumps(config.json_schema(), indent=2))
    return 0


def _migrate(parsed: argparse.Namespace) -> int:
    try:
        old = parsed.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _say(f"gpu-arbiterd: {parsed.file} cannot be read: {error}", sys.stderr)
        return 2
    migrated = config.migrate_with_notes(old)
    for note in migrated.notes:
        _say(f"note: {note}", sys.stderr)
    _say(migrated.yaml.rstrip())
    return 0


def _journal(parsed: argparse.Namespace) -> int:
    from gpuarbiter_server import journal_cli

    directory = _load(parsed).journal.directory()
    if directory is None:
        _say("gpu-arbiterd: journal.durability is memory: there is no journal", sys.stderr)
        return 2
    return journal_cli.run(parsed.command, directory, as_json=parsed.json)


def _token(parsed: argparse.Namespace) -> int:
    from gpuarbiter_server.store import admin_token

    settings = _load(parsed)
    try:
        found = admin_token.find(settings.auth.admin_token, settings.journal.directory(), os.environ)
    except admin_token.TokenError as error:
        _say(f"gpu-arbiterd: {error}", sys.stderr)
        return 1
    if found is None:
        _say(f"gpu-arbiterd: {admin_token.NO_PLACE}", sys.stderr)
        return 2
    _say(found)
    return 0


def _say(text: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    # In one piece: log lines come from another thread.
    stream.write(text + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
