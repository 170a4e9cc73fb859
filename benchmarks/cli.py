"""`safelight bench`: found by its entry point, since safelight imports nothing of benchmarks."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from benchmarks.document import Result
    from benchmarks.session import Order

__all__ = ["Format", "app"]

app = typer.Typer(
    name="bench",
    help="Measure this machine, compare results, and report them. Nothing names you or it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Format(StrEnum):
    """What `report` writes."""

    md = "md"
    html = "html"
    csv = "csv"
    jsonl = "jsonl"


@app.command("run")
def run(
    scenario: Annotated[
        str,
        typer.Option(
            "--scenario",
            help="pocket-128, sd15-512, sd21-768, sdxl-1024, turbo-512, vault-seal, vault-1000,"
            " vault-100000 or vault-1000000.",
        ),
    ] = "pocket-128",
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            help="Devices as `generate --device` names them, by commas; cuda:0,1 is two cards that"
            " share the pictures of a request: give --batch as many.",
        ),
    ] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="auto, fp32, bf16, fp16, int8; several by commas.")
    ] = "auto",
    batch: Annotated[
        str, typer.Option("--batch", help="Pictures of one request; several by commas: 1,4.")
    ] = "1",
    repeat: Annotated[
        int,
        typer.Option(
            "--repeat", help="Turns of each configuration at least; 0: the scenario's own number."
        ),
    ] = 0,
    model: Annotated[
        str, typer.Option("--model", help="A bundle on the shelf of the scenario's architecture.")
    ] = "",
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Keep the result; - is standard output."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing while it measures.")] = False,
) -> None:
    """Measure one scenario: loading, stages, memory, the picture.

    Warm, side by side, in processes of their own; with the state of the machine before and after.
    A configuration that draws other pictures than fp32 has failed (status 6). A first Ctrl-C keeps
    what was measured, marked as partial (status 130).
    """
    from benchmarks.document import text_of
    from benchmarks.session import Session
    from benchmarks.tables import summary
    from safelight.console import note, result
    from safelight.interrupt import Interruption
    from safelight.settings import load_settings

    order = _order(scenario, backend, precision, batch, repeat, model)
    _check_target(json)
    with Interruption() as stop:
        session = Session(
            settings=load_settings(), say=(lambda _text: None) if quiet else note, stop=stop
        )
        found = session.run(order)
    if json is not None and str(json) == "-":
        result(text_of(found).rstrip("\n"))
    else:
        if json is not None:
            json.write_text(text_of(found), "utf-8")
        for each in summary(found):
            result(each)
    _conclude(found)


@app.command("compare")
def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="The older result.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="The newer result.")],
    fail: Annotated[
        str, typer.Option("--fail", metavar="5%", help="Exit with 6 when B is slower by more.")
    ] = "",
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on standard output.")
    ] = False,
) -> None:
    """Compare two results of one scenario, stage by stage.

    A difference inside the noise of either side is called that, and never a win or a loss. What
    draws other pictures than fp32 wins nothing.
    """
    from benchmarks.comparison import compare_results, parse_share
    from benchmarks.errors import RegressionError
    from benchmarks.signed import read_signed
    from benchmarks.tables import comparison_lines
    from safelight.console import line, note, result, table

    share = parse_share(fail) if fail else None
    one, other = read_signed(before), read_signed(after)
    found = compare_results(one, other)
    for remark in found.remarks:
        note(f"note: {remark}")
    if json:
        for row in found.rows:
            line(row.fields())
    else:
        table(*comparison_lines(found))
        result(found.verdict())
    if share is not None and (worse := found.slower_than(share)):
        names = ", ".join(f"{row.configuration} {row.stage} {row.change:+.1%}" for row in worse[:5])
        raise RegressionError(f"slower than --fail {fail} allows: {names}")


@app.command("report")
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT.json...", help="Results.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="NAME", help="Write NAME.md and NAME.html (with --format one of them)."
        ),
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="One form only; md without --to.")
    ] = None,
) -> None:
    """Report results as Markdown and as one HTML page with plots."""
    from benchmarks.page import page
    from benchmarks.report import csv_rows, json_lines, markdown
    from benchmarks.signed import read_signed
    from safelight.console import result

    read = [read_signed(each) for each in results]
    forms = {
        Format.md: lambda: markdown(read),
        Format.html: lambda: page(read),
        Format.csv: lambda: csv_rows(read),
        Format.jsonl: lambda: json_lines(read),
    }
    if to is None:
        result(forms[form or Format.md]().rstrip("\n"))
        return
    for each in (form,) if form else (Format.md, Format.html):
        path = to if to.suffix == f".{each}" else to.with_name(f"{to.name}.{each}")
        path.write_text(forms[each](), "utf-8")
        result(str(path))


@app.command("verify")
def verify(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT.json...", help="Results.")],
) -> None:
    """Check results against the schema and their signatures.

    Ends with status 4 for one that was changed.
    """
    from benchmarks.signed import read_signed
    from safelight.console import result

    for path in results:
        found = read_signed(path)
        if found.signature is None:
            result(f"{path.name}: well-formed, not signed")
        else:
            result(f"{path.name}: well-formed, signed by {found.signature.public_key[:16]}")


def _order(
    scenario: str, backend: str, precision: str, batch: str, repeat: int, model: str
) -> "Order":
    """Make an order of the options; raises UsageError and RequestError with the nearest name."""
    from benchmarks.scenarios import find
    from benchmarks.session import Order
    from engine.devicenames import parse_device
    from engine.devices import PRECISIONS
    from engine.errors import unknown_name
    from safelight.exits import UsageError

    row = find(scenario)
    backends, precisions = _devices(backend), tuple(precision.split(","))
    for each in backends:
        parse_device(each)
    for each in precisions:
        if each not in PRECISIONS:
            raise unknown_name("precision", each, PRECISIONS)
    batches: list[int] = []
    for each in batch.split(","):
        if not each.isdecimal() or not 1 <= int(each) <= 64:
            raise UsageError(f"batch is '{each}'; whole numbers from 1 to 64 are allowed")
        batches.append(int(each))
    if not 0 <= repeat <= 1000:
        raise UsageError(f"repeat is {repeat}; 0 to 1000 is allowed")
    return Order(
        scenario=row,
        backends=backends,
        precisions=precisions,
        batches=tuple(batches),
        rounds=repeat,
        model=model,
    )


def _devices(text: str) -> tuple[str, ...]:
    """Tell devices apart by commas; a number behind one belongs to the device before it."""
    found: list[str] = []
    for each in text.split(","):
        if found and each.isdecimal():
            found[-1] += f",{each}"
        else:
            found.append(each)
    return tuple(found)


def _check_target(path: Path | None) -> None:
    """Refuse a file that cannot be written before minutes are spent."""
    if path is None or str(path) == "-":
        return
    from safelight.exits import UsageError

    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--json: '{path}' is a folder, or lies in none that there is")


def _conclude(found: "Result") -> None:
    """End with the status of what came out."""
    from benchmarks.errors import DriftError, WorkerError
    from safelight.console import note
    from safelight.exits import ExitStatus

    if found.partial:
        note("it was stopped: what was measured is kept, marked as partial")
        raise typer.Exit(ExitStatus.INTERRUPTED)
    if not found.configurations:
        why = "; ".join(f"{name}: {reason}" for name, reason in found.skipped.items())
        raise WorkerError(f"nothing could be measured: {why}")
    drifted = [each for each in found.configurations if each.quality and not each.quality.passed]
    if drifted:
        first = drifted[0]
        psnr = first.quality.psnr if first.quality else 0.0
        least = first.quality.least_psnr if first.quality else 0.0
        raise DriftError(
            f"{first.name} draws other pictures than fp32: {psnr:.1f} dB, at least {least:.0f}",
            hint="its speed counts for nothing; the result says so",
        )
