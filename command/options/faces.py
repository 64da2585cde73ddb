"""Options of the face service in `hutong up`: where its gallery is, and who operates it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import click

from command.options.operators import secret_of
from facepay.gallery.opening import Milvus, Place
from hutong_contract.secret import Secret

SECRET_VARIABLE: Final = "HUTONG_FACE_OPERATOR_SECRET"
TOKEN_VARIABLE: Final = "HUTONG_MILVUS_TOKEN"
SECRET_VARIABLES: Final = frozenset({SECRET_VARIABLE, TOKEN_VARIABLE})
"""Not for the eyes of processes that a network starts."""
_MILVUS: Final = "milvus:"

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Faces:
    """What was asked for."""

    gallery: Place | None
    operators: frozenset[str]
    secret: Secret[str] | None = field(repr=False)


def face_options(command: Command) -> Command:
    """Adds the options; the command gets them as `faces`."""

    @click.option(
        "--face-gallery",
        default="",
        metavar="milvus:URI",
        help=f"Search faces on Milvus: milvus:http://HOST:19530 (token in {TOKEN_VARIABLE}), or milvus:FILE for "
        "milvus-lite. Default: in this process.",
    )
    @click.option(
        "--face-operator",
        "face_operators",
        multiple=True,
        metavar="NAME",
        help="Name in a client certificate that may enrol faces; may be repeated. Or a secret in "
        f"{SECRET_VARIABLE}. Default: whoever reaches a plaintext port on this machine.",
    )
    @functools.wraps(command)
    def with_faces(face_gallery: str, face_operators: tuple[str, ...], **rest: Any) -> None:
        gallery = None
        if face_gallery:
            uri = face_gallery.removeprefix(_MILVUS)
            if uri in (face_gallery, ""):
                raise click.UsageError("--face-gallery takes milvus:http://HOST:PORT or milvus:FILE")
            gallery = Milvus(uri, secret_of(TOKEN_VARIABLE))
        command(faces=Faces(gallery, frozenset(face_operators), secret_of(SECRET_VARIABLE)), **rest)

    return with_faces
