"""Risk as Python calls, for operators: rules in force, decisions, and releasing or rejecting held payments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hutong.gateway.v1 import payment_pb2
from hutong.gateway.v1 import risk_pb2 as pb
from hutong.gateway.v1 import risk_pb2_grpc as rpc
from hutong_client.client import HutongClient, Request, Response, Unary
from hutong_contract.names import REQUESTOR_SECRET_METADATA
from hutong_contract.secret import Secret

PAGE: Final = 200


class RiskClient:
    """Asks a gateway's risk service in one operator's name. Raises as `hutong_client.client` says."""

    def __init__(self, client: HutongClient, *, requestor: str, secret: Secret[str] | None = None) -> None:
        """`requestor`: the operator's TRID. `secret`: its secret, if it was registered with one."""
        self._requestor = requestor
        self._metadata = () if secret is None else ((REQUESTOR_SECRET_METADATA, secret.reveal()),)
        self._client = client
        self._stub = rpc.RiskServiceStub(client.channel)

    def status(self) -> pb.GetRiskStatusResponse:
        """Which rules are in force."""
        return self._ask(self._stub.GetRiskStatus, pb.GetRiskStatusRequest(requestor_id=self._requestor))

    def reload(self) -> str:
        """Reads the file of rules again, and returns the version in force."""
        return self._ask(self._stub.ReloadRiskRules, pb.ReloadRiskRulesRequest(requestor_id=self._requestor)).version

    def decisions(self, most: int) -> Iterator[pb.RiskDecision]:
        """Decisions by which a rule fired or a payment was refused, newest first."""
        token = ""
        while most > 0:
            request = pb.ListRiskDecisionsRequest(
                requestor_id=self._requestor, page_size=min(most, PAGE), page_token=token
            )
            page = self._ask(self._stub.ListRiskDecisions, request)
            yield from page.decisions
            most, token = most - len(page.decisions), page.next_page_token
            if not token:
                return

    def explain(self, request: pb.ExplainRiskRequest) -> pb.ExplainRiskResponse:
        """Which rules would fire for a payment, without making it."""
        asked = pb.ExplainRiskRequest(requestor_id=self._requestor)
        asked.MergeFrom(request)
        return self._ask(self._stub.ExplainRisk, asked)

    def release(self, payment_id: str) -> payment_pb2.Payment:
        """Lets a payment go on that rules hold."""
        request = pb.ReleaseHeldPaymentRequest(requestor_id=self._requestor, payment_id=payment_id)
        return self._ask(self._stub.ReleaseHeldPayment, request).payment

    def reject(self, payment_id: str) -> payment_pb2.Payment:
        """Cancels a payment that rules hold."""
        request = pb.RejectHeldPaymentRequest(requestor_id=self._requestor, payment_id=payment_id)
        return self._ask(self._stub.RejectHeldPayment, request).payment

    def _ask(self, method: Unary[Request, Response], request: Request) -> Response:
        """Every call may be repeated: a release or a rejection is done once."""
        return self._client.call(method, request, repeatable=True, metadata=self._metadata)
