"""The token service over gRPC (grpc.aio). Each call is authenticated, translated, run in a thread, translated back."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import grpc

from hutong.tokenization.v1 import token_pb2 as pb
from hutong.tokenization.v1 import token_pb2_grpc
from hutong_contract import transit
from hutong_contract.errors import HutongError, Reason
from hutong_contract.incidents import incident
from hutong_contract.limits import HISTORY_PAGE_DEFAULT, HISTORY_PAGE_MAX, KEYS_RESOLVED_MAX
from hutong_contract.names import OPERATOR_TRID, REQUESTOR_SECRET_METADATA
from hutong_contract.paging import page_size
from hutong_contract.secret import Secret
from hutong_contract.serving import abort
from tokenization import wire
from tokenization.interface import Account
from tokenization.key_kinds import KeyKind
from tokenization.requestors import Action
from tokenization.service import TokenService
from tokenization.views import TokenView
from tokenization.wire import microseconds, name_from

_log = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")
THREADS: Final = 16
"""Calls that run at once. They wait for the disk and share its commits."""
WATCH_INTERVAL_S: Final = 0.1
"""How often a watcher looks for new events."""
WATCHERS_MAX: Final = 64


def _unary(
    handler: Callable[[TokenServicer, Request], Response],
) -> Callable[[TokenServicer, Request, Context], Awaitable[Response]]:
    """Runs a handler in a thread, after its requestor was authenticated; answers refusals with their details."""

    @functools.wraps(handler)
    async def call(self: TokenServicer, request: Request, context: Context) -> Response:
        try:
            self.authenticate(request, context)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.threads, handler, self, request)
        except HutongError as refusal:
            error = refusal
        except Exception as defect:  # noqa: BLE001 - the edge of the service: a defect is logged and answered as one
            error = incident(_log, f"TokenService/{handler.__name__}", defect)
        return await abort(context, error)

    return call


class TokenServicer(token_pb2_grpc.TokenServiceServicer):
    """Serves hutong.tokenization.v1.TokenService from a service in this process."""

    def __init__(self, service: TokenService) -> None:
        self._service = service
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="token")
        self._watchers = 0

    def authenticate(self, request: Any, context: Context) -> None:
        """Raises HutongError(REQUESTOR_NOT_ALLOWED), FIELD_MISSING where nobody is named."""
        if not request.requestor_id:
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="requestor_id")
        metadata = dict(context.invocation_metadata() or ())
        self._service.authenticate(request.requestor_id, str(metadata.get(REQUESTOR_SECRET_METADATA, "")))

    def _view(self, name: Any, by: str) -> TokenView:
        return self._service.show(name, by=by)[0]

    @_unary
    def RequestToken(self, request: pb.RequestTokenRequest) -> pb.RequestTokenResponse:  # noqa: N802 - gRPC's name
        made = self._service.register_accounts(
            [Account(request.issuer_id, Secret(request.account_number))],
            by=request.requestor_id,
            domain=wire.domain_from(request.domain) if request.HasField("domain") else None,
            budget=wire.budget_from(request.budget) if request.HasField("budget") else None,
            assurance_method=request.assurance_method or "00",
            expires_us=microseconds(request, "expire_time"),
            active=not request.inactive,
        )[0]
        view = wire.token_message(self._service.show(made.token_ref)[0])
        return pb.RequestTokenResponse(token=made.token.reveal(), view=view, created=made.created)

    @_unary
    def GetToken(self, request: pb.GetTokenRequest) -> pb.GetTokenResponse:  # noqa: N802 - gRPC's name
        view, keys = self._service.show(name_from(request.name), by=request.requestor_id)
        return pb.GetTokenResponse(view=wire.token_message(view), keys=[wire.key_message(key) for key in keys])

    @_unary
    def ChangeState(self, request: pb.ChangeStateRequest) -> pb.ChangeStateResponse:  # noqa: N802 - gRPC's name
        event = wire.CHANGES.get(request.change)
        if event is None:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="change")
        name, by = name_from(request.name), request.requestor_id
        self._service.change_state(name, event, key_ref=request.key_ref, by=by, reason=request.reason)
        return pb.ChangeStateResponse(view=wire.token_message(self._view(name, by)))

    @_unary
    def ReplaceToken(self, request: pb.ReplaceTokenRequest) -> pb.ReplaceTokenResponse:  # noqa: N802 - gRPC's name
        made = self._service.replace_token(name_from(request.name), by=request.requestor_id, reason=request.reason)
        view = wire.token_message(self._view(made.token_ref, request.requestor_id))
        return pb.ReplaceTokenResponse(token=made.token.reveal(), view=view)

    @_unary
    def UpdateDomain(self, request: pb.UpdateDomainRequest) -> pb.UpdateDomainResponse:  # noqa: N802 - gRPC's name
        name, by = name_from(request.name), request.requestor_id
        self._service.update_terms(
            name,
            key_ref=request.key_ref,
            domain=wire.domain_from(request.domain) if request.HasField("domain") else None,
            budget=wire.budget_from(request.budget) if request.HasField("budget") else None,
            expires_us=microseconds(request, "expire_time"),
            by=by,
        )
        return pb.UpdateDomainResponse(view=wire.token_message(self._view(name, by)))

    @_unary
    def CreateKey(self, request: pb.CreateKeyRequest) -> pb.CreateKeyResponse:  # noqa: N802 - gRPC's name
        kinds = {int(kind): kind for kind in KeyKind if kind is not KeyKind.TRANSIT}
        if request.kind not in kinds:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="kind")
        made = self._service.add_key(
            name_from(request.name),
            kinds[request.kind],
            wire.domain_from(request.domain) if request.HasField("domain") else None,
            device_id=request.device_id,
            assurance_method=request.assurance_method or "00",
            expires_us=microseconds(request, "expire_time"),
            reference=Secret(request.face_reference) if request.face_reference else None,
            by=request.requestor_id,
        )
        view = wire.key_message(self._service.view_of_key(made.row))
        return pb.CreateKeyResponse(
            view=view,
            number=made.number.reveal() if made.number else "",
            device_key=made.device_key.reveal() if made.device_key else b"",
        )

    @_unary
    def ListHistory(self, request: pb.ListHistoryRequest) -> pb.ListHistoryResponse:  # noqa: N802 - gRPC's name
        limit = page_size(request.page_size, HISTORY_PAGE_DEFAULT, HISTORY_PAGE_MAX)
        name, by = name_from(request.name), request.requestor_id
        events = self._service.history(name, after=request.after_sequence, limit=limit, by=by)
        return pb.ListHistoryResponse(events=[wire.event_message(event) for event in events])

    async def WatchTokens(  # noqa: N802 - gRPC's name
        self, request: pb.WatchTokensRequest, context: Context
    ) -> AsyncIterator[pb.WatchTokensResponse]:
        """Streams token events. Reads the store ten times a second, so that other processes' changes are seen too."""
        if self._watchers >= WATCHERS_MAX:
            await abort(context, HutongError(Reason.ERROR_REASON_OVERLOADED))
        self._watchers += 1
        loop, after = asyncio.get_running_loop(), request.after_sequence
        try:
            self.authenticate(request, context)
            while True:
                read = functools.partial(self._service.events, after, by=request.requestor_id)
                events, after = await loop.run_in_executor(self.threads, read)
                if events:
                    yield pb.WatchTokensResponse(events=[wire.event_message(event) for event in events])
                else:
                    await asyncio.sleep(WATCH_INTERVAL_S)
        except HutongError as refusal:
            await abort(context, refusal)
        finally:
            self._watchers -= 1

    @_unary
    def ReserveCode(self, request: pb.ReserveCodeRequest) -> pb.ReserveCodeResponse:  # noqa: N802 - gRPC's name
        made = self._service.reserve_code(name_from(request.name), by=request.requestor_id)
        return pb.ReserveCodeResponse(code=made.code.reveal(), expire_time=wire.timestamp(made.expires_us))

    @_unary
    def ProvisionCodes(self, request: pb.ProvisionCodesRequest) -> pb.ProvisionCodesResponse:  # noqa: N802 - gRPC's name
        name, day = name_from(request.name), request.day or None
        made = self._service.provision(name, request.device_id, day, by=request.requestor_id)
        return pb.ProvisionCodesResponse(
            alias=made.alias, day_key=made.day_key.reveal(), day=made.day, suite=made.suite
        )

    @_unary
    def IssueTransit(self, request: pb.IssueTransitRequest) -> pb.IssueTransitResponse:  # noqa: N802 - gRPC's name
        made, certificate = self._service.issue_transit(
            name_from(request.name),
            request.public_key,
            request.fare_max_minor,
            request.currency,
            expires_us=microseconds(request, "expire_time"),
            by=request.requestor_id,
        )
        return pb.IssueTransitResponse(
            view=wire.key_message(self._service.view_of_key(made.row)),
            certificate=certificate,
            issuer_public_key=transit.compress(self._service.transit_public_key),
        )

    @_unary
    def Resolve(self, request: pb.ResolveRequest) -> pb.ResolveResponse:  # noqa: N802 - gRPC's name
        self._service.permit(request.requestor_id, Action.RESOLVE)
        if len(request.keys) > KEYS_RESOLVED_MAX:
            raise HutongError(Reason.ERROR_REASON_BATCH_TOO_LARGE, field="keys", max=str(KEYS_RESOLVED_MAX))
        answers = self._service.resolve_now([wire.use_from(key) for key in request.keys])
        return pb.ResolveResponse(results=[wire.result_message(answer) for answer in answers])

    @_unary
    def Detokenize(self, request: pb.DetokenizeRequest) -> pb.DetokenizeResponse:  # noqa: N802 - gRPC's name
        number = self._service.detokenize(name_from(request.name), by=request.requestor_id)
        return pb.DetokenizeResponse(account_number=number.reveal())

    @_unary
    def RotateKeys(self, request: pb.RotateKeysRequest) -> pb.RotateKeysResponse:  # noqa: N802 - gRPC's name
        return pb.RotateKeysResponse(status=wire.status_message(self._service.rotate_keys(by=request.requestor_id)))

    @_unary
    def GetKeyStatus(self, request: pb.GetKeyStatusRequest) -> pb.GetKeyStatusResponse:  # noqa: N802 - gRPC's name
        return pb.GetKeyStatusResponse(status=wire.status_message(self._service.key_status(by=request.requestor_id)))

    @_unary
    def EraseAccount(self, request: pb.EraseAccountRequest) -> pb.EraseAccountResponse:  # noqa: N802 - gRPC's name
        name, by = name_from(request.name), request.requestor_id
        self._service.erase(name, by=by, reason=request.reason)
        ref = name if isinstance(name, bytes) else self._service.reference_of(name)
        return pb.EraseAccountResponse(view=wire.token_message(self._view(ref, OPERATOR_TRID)))


def registration(service: TokenService) -> Callable[[grpc.aio.Server], Sequence[str]]:
    """The token service for `serving`: adds it to a server, and names it for reflection and health."""

    def register(server: grpc.aio.Server) -> Sequence[str]:
        token_pb2_grpc.add_TokenServiceServicer_to_server(TokenServicer(service), server)
        return [pb.DESCRIPTOR.services_by_name["TokenService"].full_name]

    return register
