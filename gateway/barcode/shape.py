"""The JSON of a decoded barcode: the same keys for everything, null where they do not apply."""

from __future__ import annotations

from typing import Any

from gateway.barcode.model import Candidate, Decoded, Verdict
from gateway.barcode.routing import Directory, Route, best_route, resolve


def to_json(decoded: Decoded, directory: Directory) -> dict[str, Any]:
    """What `hutong barcode decode --json` prints for one payload. Holds no credential."""
    return {
        "kind": decoded.kind,
        "scheme": decoded.scheme,
        "strict": verdict_json(decoded.strict),
        "profile": verdict_json(decoded.profile),
        "route": route_json(best_route(decoded, directory)),
        "candidates": [candidate_json(candidate, directory) for candidate in decoded.candidates],
        "amount_minor": decoded.amount_minor,
        "currency": decoded.currency,
        "tip": decoded.tip,
        "tip_minor": decoded.tip_minor,
        "tip_basis_points": decoded.tip_basis_points,
        "amount_due_minor": decoded.amount_due_minor,
        "amount_least_minor": decoded.amount_least_minor,
        "merchant_name": decoded.merchant_name,
        "length_reading": decoded.length_reading,
        "initiation": decoded.initiation,
        "merchant_city": decoded.merchant_city,
        "merchant_category": decoded.merchant_category,
        "country": decoded.country,
        "reference": decoded.reference,
        "bill_number": decoded.bill_number,
        "terminal_label": decoded.terminal_label,
        "expires_us": decoded.expires_us,
        "purpose": decoded.purpose,
        "lifetime_us": decoded.credential.lifetime_us if decoded.credential is not None else None,
        "artefacts": list(decoded.artefacts),
    }


def verdict_json(verdict: Verdict | None) -> dict[str, Any] | None:
    """A verdict as JSON."""
    if verdict is None:
        return None
    violations = [{"path": v.path, "rule": v.rule, "found": v.found} for v in verdict.violations]
    return {"valid": verdict.valid, "violations": violations}


def route_json(route: Route | None) -> dict[str, Any] | None:
    """A route as JSON."""
    if route is None:
        return None
    key = route.routing
    return {
        "scheme": key.scheme,
        "kind": key.kind,
        "account": key.account,
        "payee": key.payee,
        "participant": key.participant,
        "terminal_id": key.terminal_id,
        "status": route.status,
        "to": route.to,
        "merchant_id": route.merchant_id,
    }


def candidate_json(candidate: Candidate, directory: Directory) -> dict[str, Any]:
    """A candidate as JSON."""
    return {
        "scheme": candidate.scheme,
        "score": candidate.score,
        "reason": candidate.reason,
        "purpose": candidate.purpose,
        "profile": verdict_json(candidate.profile),
        "route": route_json(resolve(candidate.routing, directory)),
    }
