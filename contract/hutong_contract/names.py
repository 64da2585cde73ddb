"""Names that the contract uses outside of messages: metadata of calls, and the built-in token requestors."""

from __future__ import annotations

from typing import Final

CALLER_METADATA: Final = "hutong-caller"
"""Names the caller where no certificate proves it. Idempotency keys are unique per caller."""
REQUESTOR_SECRET_METADATA: Final = "hutong-requestor-secret"
"""Proves a token requestor (TRID) that was registered with a secret, an operator too."""
PARTICIPANT_SECRET_METADATA: Final = "hutong-participant-secret"
"""Proves a participant at the settlement service, where its certificate does not."""
FACE_OPERATOR_SECRET_METADATA: Final = "hutong-operator-secret"
"""Proves an operator of the face service, where its certificate does not."""

OPERATOR_TRID: Final = "10000000001"
"""The operator of the token service, of settlement and of risk rules."""
WALLET_TRID: Final = "10000000002"
"""A wallet requestor without a secret."""
GATEWAY_TRID: Final = "10000000003"
"""The gateway itself."""
