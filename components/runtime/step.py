"""A step as a command: the `run` verb every step shares, and exit codes from errors."""

from __future__ import annotations

import inspect
import pkgutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from components.runtime.errors import Interrupted, OnlineVPOError, one_line, storage_failure
from components.runtime.params import StepParams, load_step_params

DEFAULT_PARAMS = "params.yaml"
_TYPER_INTERRUPT = 130  # what typer makes of a KeyboardInterrupt before it can be caught here

ParamsOption = Annotated[
    str | None,
    typer.Option(
        "--params",
        metavar="FILE|URI",
        help="YAML file of params, or its s3:// URI [default: params.yaml if there is one]",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="override one param; may be repeated", show_default=False
    ),
]


def step_app(
    name: str,
    params: type[StepParams],
    run: Callable[..., Any] | str,
    inputs: Sequence[str] = (),
    optional: Sequence[str] = (),
    help: str | None = None,
) -> typer.Typer:
    """The command line of a step, with its `run` verb; the step's package may add more.

    Args:
        name: the step, its section of the params and its package under components.
        params: the class of its params.
        run: `run(params, *, <input>=..., out=...)`, or "package.module:function", imported only when it is
            called, so that --help stays quick.
        inputs: names of the input artifacts; each becomes an option --<input> URI.
        optional: names of input artifacts that a run can do without; None where they are not given.
        help: what the step does, in a line.
    """
    app = command_app(help, name)

    @app.callback()
    def _verbs() -> None:  # makes typer keep `run` as a verb even where it is the only one
        pass

    def command(**arguments: Any) -> None:
        loaded = load_params(params, name, arguments.pop("params_file"), arguments.pop("overrides"))
        check_out(arguments["out"], name, (arguments[key] for key in (*inputs, *optional)))
        from components.runtime.compute import devices

        if devices.has_torch():
            devices.configure_threads()
            devices.configure_determinism()
        done = (pkgutil.resolve_name(run) if isinstance(run, str) else run)(loaded, **arguments)
        report(name, arguments["out"], getattr(done, "metrics", None))

    place = "a folder or s3:// URI"
    wanted = [
        _parameter("params_file", ParamsOption, None),
        _parameter("overrides", SetOption, None),
        *(_option(key, f"the {key} artifact: {place}", f"artifacts/{key}") for key in inputs),
        *(_option(key, f"a {key} artifact, where one is wanted: {place}", None) for key in optional),
        _option("out", f"where to publish the result: {place}", f"artifacts/{name}"),
    ]
    command.__signature__ = inspect.Signature(wanted)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in wanted}
    app.command("run", help=f"Run step {name} and publish its artifact.")(command)
    return app


def command_app(help: str | None, name: str | None = None) -> typer.Typer:
    """A command line, or a group of commands in one, as all of them here are.

    Help is shown as it is written: as markup, "[default: 5]" or "NAME[@revision]" would lose its brackets and
    what is in them.
    """
    return typer.Typer(
        name=name,
        help=help,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def check_out(out: str, step: str, reads: Iterable[Any] = ()) -> None:
    """Check before any work that an artifact of `step` may be put at `out`; `reads` are the inputs' places.

    Raises:
        InputError: see `outputs.check`.
    """
    from components.runtime.artifacts import outputs
    from components.runtime.compute.distributed import is_main_process

    if is_main_process():
        outputs.check(out, outputs.artifact_of(step), reads)


def load_params(
    cls: type[StepParams], section: str, file: str | Path | None, overrides: Sequence[str] | None
) -> Any:
    """Params for a verb: `file`, or params.yaml in the current folder if there is one, and overrides."""
    return load_step_params(cls, section, file or default_params(), overrides or ())


def default_params() -> str | None:
    """params.yaml where the current folder has one, else None."""
    return DEFAULT_PARAMS if Path(DEFAULT_PARAMS).is_file() else None


def main(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit with the code that its end stands for.

    0 done; 2 bad params, input or output; 3 refused by a gate; 75 interrupted and resumable; 1 a bug, with
    its traceback.
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except OnlineVPOError as error:
        _exit(error.exit_code, f"{error.label}: {error}")
    except (KeyboardInterrupt, typer.Abort):
        _exit(Interrupted.exit_code, f"{Interrupted.label}: {Interrupted()}")
    except Exception as error:
        show = getattr(error, "show", None)
        if callable(show) and hasattr(error, "exit_code"):  # a usage error of the command line itself
            show()
            _exit(int(error.exit_code))
        reason = storage_failure(error)
        if reason is None:
            raise
        _exit(2, f"error: {reason}")
    if code == _TYPER_INTERRUPT:
        _exit(Interrupted.exit_code, f"{Interrupted.label}: {Interrupted()}")
    _exit(code if isinstance(code, int) else 0)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM outside a loop that watches for it: stop here, the workspace keeps what was checkpointed.

    Not an Exception: it may strike inside code that survives every Exception, such as tracking.
    """
    raise KeyboardInterrupt


def _exit(code: int, line: str = "") -> NoReturn:
    sys.stdout.flush()
    if line:
        print(one_line(line), file=sys.stderr, flush=True)
    raise SystemExit(code)


def report(name: str, out: object, metrics: Mapping[str, float] | None) -> None:
    """Print that `name` is done, where its result lies and its metrics; on the main process only."""
    from components.runtime.compute.distributed import is_main_process
    from components.runtime.tables import columns

    if not is_main_process():
        return
    rows = [(key, f"{value:.6g}") for key, value in sorted((metrics or {}).items())]
    print("\n".join([f"{name}: done, {out}", *columns(rows, left=(0, 1), indent=2)]))


def _option(name: str, help: str, default: str | None) -> inspect.Parameter:
    kind: Any = str if default is not None else str | None
    flag = f"--{name.replace('_', '-')}"
    return _parameter(name, Annotated[kind, typer.Option(flag, help=help)], default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
