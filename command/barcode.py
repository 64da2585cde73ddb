"""`hutong barcode`: reads, writes, scans, translates and measures payment barcodes. Needs no server: one that runs is
asked where codes lead."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from command.options.amounts import exponent_of, minor_units
from command.options.folders import FILE, NEW_FILE, NEW_FOLDER
from command.options.formats import json_lines_option
from command.options.groups import Group
from command.options.leads import leads_options
from command.printing.codes import code_page, picture_page
from command.printing.said import say, say_either, say_exact, say_json
from command.printing.verdict import failed
from gateway.barcode import tips
from gateway.barcode.build import HUTONG, MerchantCode, build_merchant_code, writable
from gateway.barcode.decode import decode as decode_text
from gateway.barcode.forms import FORMS
from gateway.barcode.found import Effort
from gateway.barcode.readers import Limits, Reader
from gateway.barcode.routing import EMPTY, Directory
from gateway.barcode.shape import route_json
from gateway.barcode.translate import translate as translate_text
from gateway.directory import DirectoryError, load
from hutong_contract.errors import HutongError
from sandbox.leads import Leads

OpenLeads = Callable[[], AbstractContextManager[Leads]]
SCAN_LIMITS = Limits(cpu_s=10, wall_s=60.0)
"""What one picture may cost the command, which nobody else waits for."""

_directory_option = click.option(
    "--directory",
    "directory_file",
    type=FILE,
    help="The gateway's directory (JSON), so that routes lead to participants.",
)


@click.group(cls=Group)
def barcode() -> None:
    """Read, write, scan and translate payment barcodes."""


@barcode.command()
@click.argument("payload", required=False)
@click.option(
    "--now",
    "moment",
    help='Judge whether the code has ended: at this moment (2026-01-31T12:00:00+08:00, a zone is needed) or "now".',
)
@json_lines_option
@leads_options
def decode(payload: str | None, moment: str | None, as_json: bool, leads: OpenLeads) -> None:
    """Say what PAYLOAD is, whether it is right, and where it leads.

    Where it leads is asked of the network at --target, unless a directory or a data folder is named.
    With - (or without PAYLOAD) each line of standard input is a payload. A code that breaks rules is no error of the
    command: its verdicts say so.
    """
    now_us = _moment_us(moment)
    with leads() as known:
        for text in _payloads(payload):
            shape = known.shape(text, decode_text(text, now_us=now_us))
            say_either(shape, "" if as_json else code_page(shape), as_json=as_json)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX_US: Final = {10: 1_000_000, 13: 1_000, 16: 1}
"""Digits of a time since 1970 of these years, to the microseconds of its unit: seconds, milliseconds, microseconds."""


def _moment_us(moment: str | None, option: str = "--now") -> int | None:
    """The time that an option names, UTC in microseconds; None where it is not given."""
    if moment is None:
        return None
    if moment == "now":
        return time.time_ns() // 1000
    if moment.isascii() and moment.isdigit() and len(moment) in _UNIX_US:
        return int(moment) * _UNIX_US[len(moment)]
    try:
        at = datetime.fromisoformat(moment)
        if at.tzinfo is None:
            raise ValueError("no zone")
        return (at - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        problem = (
            f'{moment!r} is neither "now" nor a moment with its zone, such as 2026-01-31T12:00:00+08:00, nor seconds, '
            "milliseconds or microseconds since 1970"
        )
        raise click.BadParameter(problem, param_hint=option) from error


@barcode.command()
@click.option("--scheme", default=HUTONG, show_default=True, type=click.Choice(writable()), help="Whose code to write.")
@click.option("--account", help="The merchant's id inside the scheme.")
@click.option("--name", default="", help="Merchant name, up to 25 characters.")
@click.option("--city", default="", help="Merchant city, up to 15 characters.")
@click.option("--country", default="CN", show_default=True, help="ISO 3166 alpha-2.")
@click.option("--currency", default="CNY", show_default=True, help="ISO 4217 alphabetic.")
@click.option("--category", default="0000", show_default=True, help="ISO 18245 merchant category code.")
@click.option("--amount", default="", help="Such as 12.50; without it the payer enters the amount.")
@click.option("--amount-minor", type=click.IntRange(1), hidden=True)
@click.option("--ask-for-tip", is_flag=True, help="Ask the payer for a tip.")
@click.option("--fee", default="", help="A fee on top of the amount: 0.50, or 2.5% of it.")
@click.option(
    "--expires", "moment", help="When the code ends, where the scheme's codes say it: a moment with its zone."
)
@click.option("--terminal", default="", help="Terminal id.")
@click.option("--participant", default="", help="BIN, BIC or organisation id, where the scheme asks for one.")
@click.option("--reference", default="", help="Reference label; of a bill or credit transfer its reference or text.")
@click.option("--bill-number", default="", help="Bill number; of a Thai bill reference 2.")
@click.option("--postal-code", default="", help="Postal code, where the scheme asks for one.")
@click.option("--text", help="Draw this text as it is instead; - reads it from standard input.")
@click.option("--png", type=NEW_FILE, help="Also draw it into this PNG file.")
@click.option("--svg", type=NEW_FILE, help="Also draw it into this SVG file.")
@click.option("--terminal-symbol", is_flag=True, help="Also draw it in the terminal.")
@click.option(
    "--symbology", default="qr", show_default=True, type=click.Choice(["qr", "code128"]), help="Symbol to draw."
)
@click.option("--scale", default=6, show_default=True, type=click.IntRange(1, 64), help="Pixels a module.")
@click.option(
    "--level", default="M", show_default=True, type=click.Choice(["L", "M", "Q", "H"]), help="QR error level."
)
@click.option(
    "--eci/--no-eci", default=None, help="Force ECI 26 on or off; without either, where a character needs it."
)
def encode(text: str | None, png: Path | None, svg: Path | None, terminal_symbol: bool, **given: Any) -> None:
    """Write a merchant code and print it; draw it as a symbol, proven by reading it back."""
    payload = next(_payloads(text), "") if text is not None else _built(given)
    if text is None:
        say_exact(payload)
    if png is None and svg is None and not terminal_symbol:
        return
    from gateway.barcode import symbols  # imports OpenCV, which most calls do without

    style = symbols.Style(given["scale"], given["level"], given["eci"])
    try:
        if png is not None:
            png.write_bytes(symbols.render_png(payload, given["symbology"], style))
        if svg is not None:
            svg.write_text(symbols.render_svg(payload, given["symbology"], style), "utf-8")
        if terminal_symbol:
            click.echo(symbols.render_terminal(payload, given["symbology"], style), nl=False)
    except HutongError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}") from error


def _built(given: dict[str, Any]) -> str:
    if not given["account"] or not given["name"]:
        raise click.UsageError("give --account and --name, or --text")
    if given["amount"]:
        given["amount_minor"] = minor_units(given["amount"], given["currency"])
    exponent_of(given["currency"])
    code = MerchantCode(
        account=given["account"],
        merchant_name=given["name"],
        merchant_city=given["city"] or ("" if given["scheme"] in FORMS else "NA"),
        country=given["country"],
        currency=given["currency"],
        merchant_category=given["category"],
        amount_minor=given["amount_minor"],
        expires_us=_moment_us(given["moment"], "--expires"),
        **_tip(given),
        terminal_id=given["terminal"],
        participant=given["participant"],
        reference=given["reference"],
        bill_number=given["bill_number"],
        postal_code=given["postal_code"],
    )
    try:
        return build_merchant_code(code, given["scheme"])
    except HutongError as error:
        raise click.ClickException(str(error)) from error


def _tip(given: dict[str, Any]) -> dict[str, Any]:
    """The tip or fee that a code is to ask for, as the builder takes it."""
    fee = given["fee"]
    if fee and given["ask_for_tip"]:
        raise click.UsageError("a code asks for a tip or adds a fee: give --ask-for-tip or --fee")
    if fee.endswith("%"):
        points = tips.basis_points(fee[:-1])
        if points is None:
            raise click.BadParameter("a percentage is 0.01% to 99.99%", param_hint="--fee")
        return {"tip": tips.PERCENT, "tip_basis_points": points}
    if fee:
        return {"tip": tips.FIXED, "tip_minor": minor_units(fee, given["currency"], "--fee")}
    return {"tip": tips.ASKED if given["ask_for_tip"] else tips.NONE}


@barcode.command()
@click.argument("payload")
@click.option("--name", required=True, help="The merchant's name, up to 60 characters.")
@click.option("--takes", multiple=True, help="A scheme that is taken, by the name customers know; may be repeated.")
@click.option("--logo", type=click.Path(path_type=Path), help="A picture for the code's middle.")
@click.option("--rounded", is_flag=True, help="Round corners where dark modules end.")
@click.option("--size", default="a6", show_default=True, type=click.Choice(["a6", "a5", "a4"]), help="Paper.")
@click.argument("out", type=NEW_FILE)
def placard(
    payload: str, name: str, takes: tuple[str, ...], logo: Path | None, rounded: bool, size: str, out: Path
) -> None:
    """Draw what hangs at a till: PAYLOAD (or - for standard input) as a code, into OUT (.pdf, .png or .svg).

    The code is still read with a tenth of it covered, which is tried before the file is written.
    """
    from gateway.barcode.files import read_file
    from gateway.barcode.placard import Placard, render_placard

    text = next(_payloads(payload), "")
    try:
        picture = b"" if logo is None else read_file(logo)
        drawn = render_placard(Placard(text, name, takes, rounded, picture, size), out.suffix[1:].lower())
        out.write_bytes(drawn)
    except HutongError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename}: {error.strerror}") from error


@barcode.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--thorough", is_flag=True, help="Try everything, also after something was read: for several bad codes.")
@json_lines_option
@leads_options
def scan(images: tuple[Path, ...], thorough: bool, as_json: bool, leads: OpenLeads) -> None:
    """Read the symbols of IMAGES (QR, Code 128 and others) and decode each.

    Every file is read by itself, in a child process under limits of time and memory. The exit status is 1 where one of
    them could not be read; a picture that shows no code is no error. Where codes lead is asked of the network at
    --target, unless a directory or a data folder is named.
    """
    unread: list[str] = []
    with Reader(SCAN_LIMITS) as reader, leads() as known:
        for path in images:
            shape = _scanned(path, reader, Effort.THOROUGH if thorough else Effort.LADDER, known)
            if shape["error"] is not None:
                unread.append(f"{path}: {shape['error']}")
            say_either(shape, "" if as_json else picture_page(shape), as_json=as_json)
    if unread:
        failed(f"{len(unread)} of {len(images)} files could not be read", unread)


def _scanned(path: Path, reader: Reader, effort: Effort, known: Leads) -> dict[str, Any]:
    """What one file shows, or why it cannot be read."""
    shape: dict[str, Any] = {"file": str(path), "codes": [], "complete": True, "error": None}
    try:
        reading = reader.read(path, effort)
    except HutongError as error:
        return {**shape, "complete": False, "error": str(error)}
    shape["complete"] = reading.complete
    for symbol in reading.symbols:
        code = {"text": symbol.text, "format": symbol.format, "position": symbol.position, "reader": symbol.reader}
        shape["codes"].append({**code, "decoded": known.shape(symbol.text, decode_text(symbol.text))})
    return shape


@barcode.command()
@click.argument("payload")
@click.option("--to", "target", default=HUTONG, show_default=True, type=click.Choice(writable()), help="Target scheme.")
@click.option("--account", help="The account in the target scheme, where the code and the directory do not know it.")
@json_lines_option
@_directory_option
def translate(payload: str, target: str, account: str | None, as_json: bool, directory_file: Path | None) -> None:
    """Write the merchant code PAYLOAD in another scheme's encoding, and tell what that loses."""
    directory = _directory(directory_file)
    try:
        said = translate_text(next(_payloads(payload), ""), target, directory, account)
    except HutongError as error:
        raise click.ClickException(str(error)) from error
    losses = [
        {"path": loss.path, "name": loss.name, "reason": loss.reason, "value": loss.value} for loss in said.losses
    ]
    if as_json:
        from gateway.barcode.routing import resolve

        shape = {"payload": said.payload, "scheme": said.scheme, "source": said.source}
        say_json({**shape, "route": route_json(resolve(said.routing, directory)), "losses": losses})
        return
    say_exact(said.payload)
    for loss in losses:
        say(f"  {loss['reason']:>12}  {loss['path']:6} {loss['name']}: {loss['value']}", err=True)


@barcode.command()
@click.option("--codes", default=20_000, show_default=True, type=click.IntRange(100, 1_000_000), help="Distinct codes.")
@click.option(
    "--pictures", default=240, show_default=True, type=click.IntRange(0, 100_000), help="Pictures with codes."
)
@click.option("--empty", default=1_000, show_default=True, type=click.IntRange(0, 100_000), help="Pictures without.")
@click.option(
    "--seed", default=1, show_default=True, type=int, help="Of the codes and pictures: the same seed, the same ones."
)
@click.option(
    "--node-modules",
    default=Path("build/barcode-bench/node_modules"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where npm put the other libraries: npm install --prefix build/barcode-bench emvqr emvco-merchant-parse",
)
@json_lines_option
def bench(codes: int, pictures: int, empty: int, seed: int, node_modules: Path, as_json: bool) -> None:
    """Measure decoding against other libraries, and reading pictures against zxing-cpp alone."""
    from command.printing.barcodes import bench_page
    from command.printing.progress import beginning
    from loadtest import barcodes as measured

    with beginning() as begin:
        report = measured.measure(codes, pictures, empty, seed, node_modules, begin)
    say_either(report, "" if as_json else bench_page(report), as_json=as_json)


@barcode.command()
@click.argument("folder", type=NEW_FOLDER)
@click.option("--generate", type=click.IntRange(1, 100_000), help="First write so many pictures of every kind there.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="The same seed, the same pictures.")
@json_lines_option
def corpus(folder: Path, generate: int | None, seed: int, as_json: bool) -> None:
    """Read the pictures of FOLDER and compare with zxing-cpp alone and OpenCV alone, in the same run.

    What a picture shows stands beside it: NAME.txt holds the text of its one code, or nothing where it shows none;
    NAME.json holds a list of texts. The folder that a picture lies in is its kind. The exit status is 1 where a picture
    could not be judged.
    """
    from command.printing.barcodes import corpus_page
    from command.printing.progress import beginning
    from loadtest import barcode_corpus

    try:
        if generate is not None:
            barcode_corpus.generate(folder, generate, seed)
        with beginning() as begin:
            report = barcode_corpus.measure(folder, begin)
    except barcode_corpus.CorpusError as error:
        raise click.ClickException(str(error)) from error
    say_either(report, "" if as_json else corpus_page(report), as_json=as_json)
    if report["unread_files"]:
        failed(f"{report['unread_files']} pictures could not be judged", [str(one) for one in report["problems"]])


@barcode.command()
@click.option("--inputs", default=1_000_000, show_default=True, type=click.IntRange(1), help="How many texts to try.")
@click.option("--seed", default=1, show_default=True, type=int, help="The same seed tries the same texts.")
@json_lines_option
def fuzz(inputs: int, seed: int, as_json: bool) -> None:
    """Decode mutations of real codes: no crash, no untyped answer, nothing slower than 5 ms, round trips exact."""
    from command.printing.barcodes import fuzz_page
    from command.printing.progress import beginning
    from loadtest import barcodes as measured

    with beginning() as begin:
        report = measured.fuzz(inputs, seed, begin)
    say_either(report, "" if as_json else fuzz_page(report), as_json=as_json)
    if report["failures"]:
        failed("inputs failed", [f"input {one['input']}: {one['problem']}" for one in report["failures"]])


def _payloads(argument: str | None) -> Iterator[str]:
    """The argument, or each line of standard input. What is not UTF-8 becomes surrogates, which decode refuses."""
    if argument not in {None, "-"}:
        yield str(argument)
        return
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")


def _directory(path: Path | None) -> Directory:
    if path is None:
        return EMPTY
    try:
        return load(path)
    except DirectoryError as error:
        raise click.ClickException(str(error)) from error
