r"""The commands, and how they fail: one line on stderr, and an exit code that says why."""

from __future__ import annotations

__all__ = ["app", "main"]

import contextlib
import json
import os
import shlex
import sys
import torch
import typer
import warnings
import xarray as xr

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from .border import Names, output_folder, say
from .challenge import challenge_files, check_plain, show_challenge
from .comparing import compare_methods, listed
from .demonstrate import demonstrate
from .fetch import download, fetch_command
from .learning import is_learned, map_learned, train_model
from .lorenz_story import tell_lorenz63
from .mapping import Request, fit_model, make_map
from .model import Model
from .ocean_story import tell_gulfstream
from .osse import make_osse, next_command
from .product import Heights, Product
from .scoring import check_truth, read_like, score_files, show_scores
from .settings import LEARNED, Settings
from ..data import InputError, check_output, describe, read, read_map
from ..data.product import as_field
from ..mappers import MAPPERS
from ..report import report as write_report

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Reconstruct fields from sparse, noisy, gappy observations, with their uncertainty. "
        "With --debug, an error shows where it comes from."
    ),
)

STORIES = {"sea": demonstrate, "lorenz63": tell_lorenz63, "gulfstream": tell_gulfstream}
"""What the demonstration can tell."""
UsageError = typer.BadParameter.__mro__[1]
"""What the parser raises; typer does not name it."""

Variable = Annotated[str | None, typer.Option(help="The variable, where it is not obvious.")]
Axis = Annotated[str | None, typer.Option(help="The name of this coordinate in the file.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The seed of every random number.")]
# what is None was not given, so that a file of settings may say it
GivenSeed = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="The seed of every random number. [0]")
]
Alpha = Annotated[
    float | None,
    typer.Option(help="The power of the operator of spde or advection-diffusion, e.g. 2."),
]
Velocity = Annotated[
    str | None,
    typer.Option(help="Currents (ugos, vgos) or heights (adt), for advection-diffusion."),
]
Mdt = Annotated[
    Path | None,
    typer.Option(help="A mean dynamic topography (a file, or a column): SLA becomes ADT."),
]
Lwe = Annotated[
    str, typer.Option(help="keep or remove the long-wavelength correction of the product.")
]
Quantity = Annotated[
    str | None, typer.Option(help="adt or sla: what to map with --mdt, or what the data are.")
]
Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="CSV, Parquet or NetCDF.")]


@app.command(epilog="Example: matheron demo -o demo")
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder.")] = Path("demo"),
    seed: Seed = 0,
    story: Annotated[str, typer.Option(help=f"{' or '.join(STORIES)}.")] = "sea",
) -> None:
    """Tell the whole story on simulated data: simulate, observe, map, score, report."""
    if story not in STORIES:
        msg = f"demo(story={story}): expected one of {', '.join(STORIES)}. Choose one."
        raise InputError(msg)
    STORIES[story](output, seed)


@app.command(epilog="Example: matheron info tracks.csv")
def info(
    files: Files,
    variable: Variable = None,
    lon: Axis = None,
    lat: Axis = None,
    time: Axis = None,
    x: Axis = None,
    y: Axis = None,
) -> None:
    """Say what is in a file: variable, units, longitude branch, gaps, duplicates, missions."""
    for path in files:
        typer.echo(str(describe(path, variable, lon=lon, lat=lat, time=time, x=x, y=y)))


@app.command(epilog="Example: matheron fit tracks.csv --method spde --variable ssh -o model/")
def fit(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the model.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="auto, kriging, vecchia, inducing, spde or advection-diffusion; for an OSSE made "
            "with --train unet, 4dvarnet, fixedpoint or 4dvarnet-spde. [auto]"
        ),
    ] = None,
    variable: Variable = None,
    trend: Annotated[str | None, typer.Option(help="E.g. '1 + lon + lat'.")] = None,
    metric: Annotated[str | None, typer.Option(help="sphere or plane.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings, as TOML.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the model that is there.")] = False,
    mdt: Mdt = None,
    lwe: Lwe = "keep",
    quantity: Quantity = None,
    alpha: Alpha = None,
    velocity: Velocity = None,
    seed: GivenSeed = None,
    lon: Axis = None,
    lat: Axis = None,
    time: Axis = None,
    x: Axis = None,
    y: Axis = None,
    updates: Annotated[
        int | None, typer.Option(min=1, help="Updates of a solver that learns. [2000]")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="About how long it may learn, instead of --updates.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="The days that it maps a day from, odd. [15]")
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(help="The step of its grid, in degrees. [0.2; of images their own]"),
    ] = None,
    oceans: Annotated[
        int | None,
        typer.Option(min=1, help="How many oceans it learns from; others are simulated. [1]"),
    ] = None,
    first: Annotated[
        str | None, typer.Option("--first-guess", help="What it starts from: oi or none. [oi]")
    ] = None,
    purpose: Annotated[
        str | None, typer.Option(help="mapping, near-real-time or forecast. [mapping]")
    ] = None,
    lead: Annotated[int | None, typer.Option(help="The days ahead of a forecast.")] = None,
    supervision: Annotated[
        str | None,
        typer.Option(help="truth; or data, of images: learn from what is withheld. [truth]"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="32; or bf16: about twice as fast where the processor has it. [32]"),
    ] = None,
    accelerator: Annotated[str | None, typer.Option(help="cpu, gpu or auto. [cpu]")] = None,
    covariates: Annotated[
        str | None,
        typer.Option(help="Other fields that it learns with, e.g. sst, of an OSSE with --sst."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A trained solver to begin with; 4dvarnet-spde takes it as it is.",
        ),
    ] = None,
    law_updates: Annotated[
        int | None, typer.Option(min=1, help="Updates of the law of 4dvarnet-spde. [400]")
    ] = None,
) -> None:
    """Fit a model to some data by maximum likelihood, or let a solver learn on an OSSE."""
    plan: dict[str, Any] = {"updates": updates, "window": window, "step": step, "oceans": oceans}
    plan |= {"first": first, "purpose": purpose, "lead": lead, "supervision": supervision}
    plan |= {"precision": precision, "covariates": listed(covariates)}
    plan |= {"law_updates": law_updates}
    if method in LEARNED:
        reading = (variable, lon, lat, time, x, y, mdt, quantity)
        others = (*reading, trend, metric, config, alpha, velocity)
        _check_learning(method, files, any(v is not None for v in others))
        given = {"method": method, "seed": seed, **plan}
        command = "matheron " + shlex.join(sys.argv[1:])
        told = (minutes, resume, command, accelerator, start)
        typer.echo(train_model(files[0], output, given, *told))
        return
    learning = {"minutes": minutes, "accelerator": accelerator, "from": start}
    _check_fitting(method, {**plan, **learning})
    settings = Settings.read(
        config,
        method=method,
        trend=trend,
        metric=metric,
        alpha=alpha,
        velocity=velocity,
        seed=seed,
    )
    folder = output_folder(output, resume)
    names = Names(lon, lat, time, x, y).given()
    data = read(files, variable, mdt=mdt, lwe=lwe, quantity=quantity, **names)
    before = Model.load(folder) if resume and (folder / "model.json").exists() else None
    model = fit_model(data, settings, before)
    model.save(folder)
    typer.echo(model.summary)


@app.command("map", epilog="Example: matheron map tracks.csv --grid -6:0:0.1,35:44:0.1 -o map.nc")
def map_(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="map.nc, or a table.")],
    variable: Variable = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="auto, kriging, vecchia, taper, inducing, spde or advection-diffusion. [auto]"
        ),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="A model made by `matheron fit`.")] = None,
    grid: Annotated[
        str | None,
        typer.Option(help="same, FILE, or lon0:lon1:step,lat0:lat1:step[,t0:t1:step]."),
    ] = None,
    at: Annotated[Path | None, typer.Option(help="A table of points, instead of a grid.")] = None,
    covariate: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE, a gridded field that the model learned with, e.g. sst=sst.nc; repeat."
        ),
    ] = None,
    members: Annotated[int, typer.Option(min=0, help="The number of members.")] = 0,
    mdt: Mdt = None,
    lwe: Lwe = "keep",
    quantity: Quantity = None,
    product: Annotated[
        str, typer.Option(help="field, or l4: names and units of the L4 products of sea level.")
    ] = "field",
    currents: Annotated[
        bool, typer.Option(help="Add the geostrophic currents of the mean (--product l4).")
    ] = False,
    pack: Annotated[
        bool, typer.Option(help="Write heights as 32-bit integers, to 0.1 mm.")
    ] = False,
    alpha: Alpha = None,
    velocity: Velocity = None,
    seed: GivenSeed = None,
    trend: Annotated[str | None, typer.Option(help="E.g. '1 + lon + lat'.")] = None,
    metric: Annotated[str | None, typer.Option(help="sphere or plane.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings, as TOML.")] = None,
    lon: Axis = None,
    lat: Axis = None,
    time: Axis = None,
    x: Axis = None,
    y: Axis = None,
) -> None:
    """Map some data on a grid or at points: mean, std of field and datum, members."""
    settings = Settings.read(
        config,
        method=method,
        trend=trend,
        metric=metric,
        alpha=alpha,
        velocity=velocity,
        seed=seed,
    )
    names = Names(lon, lat, time, x, y)
    request = Request(
        files,
        variable,
        names,
        grid,
        at,
        members,
        output,
        model,
        Heights(mdt, lwe, quantity),
        Product(product, currents, pack),
        covariate or (),
    )
    make = map_learned if is_learned(model) else make_map
    make(request, settings, command="matheron " + shlex.join(sys.argv[1:]))


@app.command(epilog="Example: matheron score map.nc --truth truth.nc --definition robust")
def score(
    prediction: Annotated[Path, typer.Argument(help="A map, or a table with predictions.")],
    truth: Annotated[
        Path | None, typer.Option(help="The truth: a map, or a table of data.")
    ] = None,
    tracks: Annotated[
        Path | None, typer.Option(help="Independent data along tracks, of one mission.")
    ] = None,
    variable: Variable = None,
    observations: Annotated[
        Path | None, typer.Option(help="The data of the map: scores by distance to them.")
    ] = None,
    noisy: Annotated[
        bool | None,
        typer.Option(help="Whether the truth holds noise; by default only tables do."),
    ] = None,
    definition: Annotated[
        str | None,
        typer.Option(help="odc2020a, oceanbench, odc2021a, ocb, regimes or robust."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="published: the rows of the leaderboard beside, other data.")
    ] = None,
    mdt: Mdt = None,
    lwe: Lwe = "keep",
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a map or a table against the truth, or under a definition of the data challenges."""
    if definition is not None:
        found = challenge_files(
            prediction,
            truth,
            tracks,
            definition,
            variable=variable,
            mdt=mdt,
            lwe=lwe,
            seed=seed,
        )
        text, plain = show_challenge(found, against)
        typer.echo(json.dumps(plain, indent=1) if as_json else text)
        return
    check_plain(against, mdt)
    scores = score_files(prediction, check_truth(truth, tracks), variable, observations, noisy)
    typer.echo(json.dumps(scores, indent=1) if as_json else show_scores(scores))


@app.command(epilog="Example: matheron report map.nc --truth truth.nc -o report.html")
def report(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="A map.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="report.html")],
    truth: Annotated[Path | None, typer.Option(help="The truth: a map, or data.")] = None,
    observations: Annotated[Path | None, typer.Option(help="The data of the map.")] = None,
    variable: Variable = None,
    noisy: Annotated[bool | None, typer.Option(help="Whether the truth holds noise.")] = None,
    seed: Seed = 0,
) -> None:
    """Draw a map, its std, members, data, residuals and calibration on one page."""
    check_output(output, (".html",))
    name = read_map(map_file, variable).variable
    with xr.open_dataset(map_file) as dataset:
        page = write_report(
            as_field(dataset.load(), name),
            output,
            truth=None if truth is None else _truth(truth, name),
            observations=None if observations is None else read_like(observations, name),
            noisy=noisy,
            generator=torch.Generator().manual_seed(seed),
        )
    say(f"wrote {page}")


@app.command(epilog="Example: matheron osse --constellation 4nadirs,swot --days 12 -o osse")
def osse(
    preset: Annotated[
        str, typer.Option(help="gulfstream, mediterranean, quiet or sediment.")
    ] = "gulfstream",
    constellation: Annotated[
        str | None,
        typer.Option(
            help="1nadir, 4nadirs (the default), 7nadirs, missions, or several: 4nadirs,swot; for "
            "sediment clouds (the default), random or both."
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help="none (the default), white, karin or full; for sediment none or lognormal (the "
            "default)."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="The seed of the ocean and of the errors.")
    ] = 0,
    days: Annotated[
        int | None, typer.Option(help="Days, a third of them spin-up; those of 2020a. [63]")
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Add another ocean to train on, 272 days for 63.")
    ] = False,
    size: Annotated[
        int | None, typer.Option(help="The nodes of the ocean on a side; fewer is faster. [128]")
    ] = None,
    sst: Annotated[
        bool, typer.Option("--sst", help="Add a sea surface temperature that the currents carry.")
    ] = False,
    sst_clouds: Annotated[
        bool, typer.Option("--sst-clouds", help="The same, hidden by clouds.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the experiment that is there.")
    ] = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder.")] = Path("osse"),
) -> None:
    """Make an ocean that is known everywhere, and what satellites would have seen of it."""
    skies = "clouds" if sst_clouds else sst
    made = make_osse(output, preset, constellation, noise, seed, days, train, size, skies, force)
    typer.echo(made)
    say(f"next: {next_command(output, preset)}")


@app.command(epilog="Example: matheron compare osse --methods oi-odc2020a,oi -o leaderboard")
def compare(
    folder: Annotated[Path, typer.Argument(metavar="OSSE", help="A folder of `matheron osse`.")],
    methods: Annotated[
        str,
        typer.Option(
            help=f"Names with commas between: {', '.join(MAPPERS)}; or NAME=DIR, a solver that "
            "`matheron fit OSSE` trained."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder.")] = Path(
        "leaderboard"
    ),
    step: Annotated[
        float | None, typer.Option(help="The step of the maps, in degrees. [0.2]")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="The observations to map from, e.g. jason1,geosat2. [all]")
    ] = None,
    members: Annotated[int, typer.Option(min=0, help="The number of members to keep.")] = 0,
    against: Annotated[
        str | None, typer.Option(help="published: the rows of the 2020a challenge, other data.")
    ] = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Map again what is there.")] = False,
) -> None:
    """Map an experiment by several methods: one table, pictures, every score and run time."""
    typer.echo(compare_methods(folder, methods, output, step, only, members, against, seed, force))


@app.command(epilog="Example: matheron fetch l4 --box=-65:-55,33:43 --start 2017-01-01")
def fetch(
    product: Annotated[
        str, typer.Argument(help="l4, l4-nrt, l3-SAT, l3-nrt-SAT (e.g. l3-j3), mdt or glorys.")
    ],
    box: Annotated[str | None, typer.Option(help="lon0:lon1,lat0:lat1.")] = None,
    start: Annotated[str | None, typer.Option(help="The first date.")] = None,
    end: Annotated[str | None, typer.Option(help="The last date.")] = None,
    variable: Annotated[list[str] | None, typer.Option(help="A variable; repeat it.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file.")] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Run the command, rather than print it.")
    ] = False,
) -> None:
    """Print the command that fetches a product of Copernicus Marine, or run it."""
    command = fetch_command(product, box, start, end, output, variable or ())
    if run:
        download(command)
    else:
        typer.echo(shlex.join(command))


def _check_learning(method: str | None, files: list[Path], others: bool) -> None:
    if others or len(files) != 1 or not (files[0] / "osse.json").is_file():
        got = "options of other methods" if others else " ".join(map(str, files))
        msg = (
            f"fit(method={method}): expected one folder of `matheron osse --train`, got {got}. "
            f"Try matheron fit osse --method {method} -o model/."
        )
        raise InputError(msg)


def _check_fitting(method: str | None, given: dict[str, Any]) -> None:
    for name, value in given.items():
        if value is not None:
            msg = (
                f"fit({name}={value}): expected --method {', '.join(LEARNED)} with it, got "
                f"{method or 'none'}. Give one of them, or leave it out."
            )
            raise InputError(msg)


def _truth(path: Path, variable: str) -> Any:
    data = read_like(path, variable)
    if data.grid is None:
        return data
    with xr.open_dataset(path) as dataset:
        return dataset[data.variable].load().rename(variable)


def main() -> None:
    r"""Runs the command line; errors are one line on stderr, unless ``--debug`` is given."""
    debug = "--debug" in sys.argv
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        code = _run([a for a in sys.argv[1:] if a != "--debug"] or ["--help"])
    except KeyboardInterrupt:
        code = _fail("interrupted; no file was left half written", 1)
    except BrokenPipeError:  # the reader of a pipe has left: nobody to tell
        code = _close_output()
    except Exception as error:
        if debug:
            raise
        code = _explain(error)
    raise SystemExit(code)


def _run(arguments: list[str]) -> int:
    r"""Runs one command, without the boxes and exits of the parser."""
    command = typer.main.get_command(app)
    try:
        with _warnings_as_notes(), command.make_context("matheron", arguments) as context:
            command.invoke(context)
    except typer.Exit as finished:  # after --help
        return finished.exit_code
    return 0


@contextlib.contextmanager
def _warnings_as_notes() -> Iterator[None]:
    r"""Shows a warning as one line, without the code that gave it."""

    def note(message: Warning | str, *_args: object, **_options: object) -> None:
        say(f"note: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = note
        yield


def _explain(error: Exception) -> int:
    if isinstance(error, UsageError):
        return _fail(_usage(error), 2)
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (ValueError, TypeError, FileNotFoundError)):
        return _fail(text, 2)
    return _fail(f"{text} (--debug shows where)", 1)


def _usage(error: Any) -> str:
    r"""Returns what the parser refused, worded as every other error."""
    path = "matheron" if error.ctx is None else error.ctx.command_path
    where = path.removeprefix("matheron").strip() or "command"
    got = " ".join(error.format_message().split()).rstrip(".")
    return f"{where}(...): expected other options, got: {got}. Try {path} --help."


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"matheron: {text}\n")
    return code


def _close_output() -> int:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (the interpreter flushes it as it ends)
    return 1
