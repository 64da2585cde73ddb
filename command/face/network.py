"""`hutong face enroll|identify|delete|renew|status`: on a running network, over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray

from command.options.connection import Connection, connected, connection_options
from command.options.faces import SECRET_VARIABLE
from command.options.folders import FILE
from command.options.formats import json_option
from command.options.operators import secret_of
from command.printing.said import say, say_json
from command.printing.screen import Screen
from command.printing.verdict import failed, said_plainly
from hutong.facepay.v1 import face_pb2, face_pb2_grpc
from hutong_contract.capture import TerminalKey
from hutong_contract.secret import Secret
from sandbox.faces import camera
from sandbox.faces.capturing import TIMEOUT_S, FaceTerminal, Factors, operator_metadata
from sandbox.faces.people import People
from sandbox.faces.readiness import when_ready

TERMINAL: Final = "hutong-face-command"
MERCHANT: Final = "operator"
LATE: Final = (
    "No answer in time, and what was asked for may have been done. Give the same command again, which does nothing "
    "twice; `hutong face status` says how many are enrolled."
)
"""Said where a call's deadline passed."""
RENEWAL_S: Final = 3_600.0
"""Longest wait for a renewal: some ten million templates."""

person_option = click.option("--person", type=click.IntRange(0), help="A simulated person's number.")
image_option = click.option(
    "--image",
    "images",
    multiple=True,
    type=FILE,
    help="A photo.",
)
models_option = click.option("--models", type=click.Path(path_type=Path), help="Folder of ONNX models, for --image.")
seed_option = click.option("--people-seed", type=int, default=7, show_default=True, help="Which simulated population.")
passcode_option = click.option(
    "--passcode", envvar="HUTONG_FACE_PASSCODE", help="Digits; better in HUTONG_FACE_PASSCODE."
)
last_four_option = click.option("--last-four", help="Last four digits of the phone number.")


@contextmanager
def _service(connection: Connection, as_json: bool) -> Iterator[face_pb2_grpc.FaceServiceStub]:
    """The face service of a gateway; errors end the command as command.options.connection says."""
    with connected(connection, as_json=as_json, late=LATE) as client:
        yield face_pb2_grpc.FaceServiceStub(client.channel)


def _terminal(stub: face_pb2_grpc.FaceServiceStub, people: People) -> FaceTerminal:
    terminal = FaceTerminal(stub, people, TERMINAL, MERCHANT, TerminalKey.generate(), secret_of(SECRET_VARIABLE))
    terminal.register()
    return terminal


def _dimension(stub: face_pb2_grpc.FaceServiceStub) -> int:
    return int(stub.GetStatus(face_pb2.GetStatusRequest(), timeout=TIMEOUT_S).dimension)


def _embeddings(images: tuple[Path, ...], models: Path | None, dimension: int) -> list[NDArray[np.float32]]:
    """One embedding for each photograph. Ends the command where one cannot be used."""
    from sandbox.faces.photographs import PhotographError, embeddings

    if models is None:
        raise click.UsageError("--image needs --models")
    with said_plainly(PhotographError):
        return embeddings(images, models, dimension)


def _factors(passcode: str | None, last_four: str | None) -> Factors:
    return Factors(Secret(passcode) if passcode else None, Secret(last_four) if last_four else None)


@click.command()
@click.argument("name")
@connection_options
@person_option
@image_option
@models_option
@seed_option
@passcode_option
@last_four_option
@click.option(
    "--region",
    type=click.IntRange(0, 65535),
    default=0,
    help="Region whose sub-gallery it is about, 1 to 65535; 0 for none.",
)
@click.option("--merchant", "merchants", multiple=True, help="In this merchant's sub-gallery; may be repeated.")
@click.option("--allow-lookalike", is_flag=True, help="Even where somebody alike is enrolled (a twin).")
@click.option(
    "--replace", is_flag=True, help="Where NAME is enrolled already: erase that face and put this in its place."
)
@click.option(
    "--keep-reference",
    is_flag=True,
    help="With --replace: this face pays from the account that the replaced one paid from.",
)
@json_option
def enroll(
    name: str,
    connection: Connection,
    person: int | None,
    images: tuple[Path, ...],
    models: Path | None,
    people_seed: int,
    passcode: str | None,
    last_four: str | None,
    region: int,
    merchants: tuple[str, ...],
    allow_lookalike: bool,
    replace: bool,
    keep_reference: bool,
    as_json: bool,
) -> None:
    """Enrol NAME: a simulated --person, or photographs. Consent is recorded as given now. The same command given again
    changes nothing and prints the same reference."""
    if (person is None) == (not images):
        raise click.UsageError("give --person or --image")
    if keep_reference and not replace:
        raise click.UsageError("--keep-reference goes with --replace")
    digits = passcode or click.prompt("Passcode", hide_input=True, confirmation_prompt=True, err=True)
    with _service(connection, as_json) as stub:
        dimension = _dimension(stub)
        people = People(people_seed, dimension)
        terminal = _terminal(stub, people)
        if person is None:
            vectors = _embeddings(images, models, dimension)
        else:
            vectors = [people.enrolled(person, 1, sitting)[0] for sitting in range(2)]
        answer = terminal.enroll(
            name,
            vectors,
            Secret(digits),
            Secret(last_four) if last_four else None,
            region=region,
            merchants=merchants,
            allow_lookalike=allow_lookalike,
            replace=replace,
            keep_reference=keep_reference,
            waiting=lambda left_s: click.echo(f"the face service loads its search, some {left_s:.0f} s", err=True),
        )
    result = {"subject": name, "reference": answer.reference, "templates": answer.templates}
    _say(result | ({"repeated": True} if answer.repeated else {}), as_json)


@click.command()
@connection_options
@person_option
@image_option
@models_option
@seed_option
@passcode_option
@last_four_option
@click.option(
    "--quality", type=click.FloatRange(0, 1), default=0.85, show_default=True, help="Of the simulated photograph."
)
@click.option("--attack", type=click.Choice(camera.ATTACKS), help="Present an attack on the person instead.")
@click.option(
    "--region",
    type=click.IntRange(0, 65535),
    default=0,
    help="Region whose sub-gallery it is about, 1 to 65535; 0 for none.",
)
@click.option("--merchant", default="", help="Only this merchant's sub-gallery.")
@click.option("--shot", type=int, default=1, show_default=True, help="Which simulated photograph.")
@json_option
def identify(
    connection: Connection,
    person: int | None,
    images: tuple[Path, ...],
    models: Path | None,
    people_seed: int,
    passcode: str | None,
    last_four: str | None,
    quality: float,
    attack: str | None,
    region: int,
    merchant: str,
    shot: int,
    as_json: bool,
) -> None:
    """Say who a simulated --person, or a photograph, is. Exit status 1 unless matched."""
    if (person is None) == (len(images) != 1):
        raise click.UsageError("give --person or one --image")
    with _service(connection, as_json) as stub:
        dimension = _dimension(stub)
        terminal = _terminal(stub, People(people_seed, dimension))
        factors = _factors(passcode, last_four)
        if person is not None:
            species = attack or camera.LIVE
            capture = terminal.capture(person, factors, quality=quality, species=species, seed=shot)
        else:
            vector = _embeddings(images, models, dimension)[0]
            capture = terminal.capture_of_file(vector, factors)
        request = face_pb2.IdentifyRequest(capture=capture, region=region, merchant_id=merchant)
        answer = when_ready(lambda: stub.Identify(request, timeout=TIMEOUT_S))
    result = {
        "outcome": face_pb2.Outcome.Name(answer.outcome).removeprefix("OUTCOME_").lower(),
        "reference": answer.reference,
        "score": round(answer.score, 4),
        "second": round(answer.second, 4),
        "threshold": round(answer.threshold, 4),
        "enrolled": answer.enrolled,
        "detail": answer.detail,
        "liveness": "simulated camera" if person is not None else "not measured: an image file",
    }
    _say(result, as_json)
    if answer.outcome != face_pb2.OUTCOME_MATCHED:
        failed(f"nobody was identified: {result['outcome']}")


@click.command()
@click.argument("name")
@connection_options
@json_option
def delete(name: str, connection: Connection, as_json: bool) -> None:
    """Erase NAME: key, templates and gallery rows. Prints the receipt."""
    with _service(connection, as_json) as stub:
        request = face_pb2.DeleteSubjectRequest(subject=name)
        answer = stub.DeleteSubject(request, timeout=TIMEOUT_S, metadata=operator_metadata(secret_of(SECRET_VARIABLE)))
    _say({"subject": name, "templates": answer.templates, "receipt": answer.receipt.hex()}, as_json)


@click.command()
@connection_options
@json_option
def renew(connection: Connection, as_json: bool) -> None:
    """Rotate all templates under a fresh secret, and destroy the old one. Searches go on meanwhile."""
    with _service(connection, as_json) as stub, Screen(stderr=True).status("rotating every template"):
        request, secret = face_pb2.RenewGalleryRequest(), secret_of(SECRET_VARIABLE)
        answer = stub.RenewGallery(request, timeout=RENEWAL_S, metadata=operator_metadata(secret))
    _say({"epoch": answer.epoch}, as_json)


@click.command()
@connection_options
@json_option
def status(connection: Connection, as_json: bool) -> None:
    """Show how many are enrolled, the thresholds that follow, and the filing counter."""
    with _service(connection, as_json) as stub:
        answer = stub.GetStatus(face_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
    fields = {field.name: getattr(answer, field.name) for field in answer.DESCRIPTOR.fields if field.name != "outcomes"}
    _say(fields | {"outcomes": dict(answer.outcomes)}, as_json)


def _say(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say_json(result)
        return
    for name, value in result.items():
        if value not in ("", {}):
            say(f"{name}: {value}")


COMMANDS: Final = (enroll, identify, delete, renew, status)
