"""The texts of merchants' codes, in each merchant's own scheme."""

from __future__ import annotations

from gateway.barcode.build import MerchantCode, build_merchant_code
from sandbox.population import Merchant


def merchant_code(merchant: Merchant, terminal_id: str, amount_minor: int | None) -> str:
    """The text of a merchant's code: static, or dynamic for an amount in minor units."""
    code = MerchantCode(
        account=merchant.account,
        merchant_name=merchant.name,
        merchant_city=merchant.city,
        country=merchant.country,
        currency=merchant.currency,
        merchant_category=merchant.mcc,
        amount_minor=amount_minor,
        terminal_id=terminal_id,
        participant=merchant.scheme_participant,
    )
    return build_merchant_code(code, merchant.scheme)
