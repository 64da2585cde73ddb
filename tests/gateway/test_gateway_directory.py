"""The directory file: what it says is found, what is wrong with it is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.directory import DirectoryError, load, parse


def data() -> dict[str, Any]:
    return {
        "participants": [
            {"id": "issuer-a", "role": "issuer", "secret": "the bank's own secret"},
            {"id": "acquirer-a", "role": "acquirer", "name": "A", "currencies": ["CNY"]},
        ],
        "merchants": [
            {
                "id": "m1",
                "name": "Shop",
                "acquirers": [{"id": "acquirer-a", "cost_bp": 30}],
                "accounts": [{"scheme": "unionpay", "account": "123"}],
                "terminals": ["t1"],
            }
        ],
        "routes": [
            {"scheme": "pix", "to": "acquirer-a"},
            {"scheme": "vietqr", "participant": "970", "to": "acquirer-a"},
        ],
    }


def test_what_it_says_is_found() -> None:
    directory = parse(data())
    merchant = directory.merchant("unionpay", "123")
    assert merchant is not None
    assert merchant.acquirers[0].cost_bp == 30
    assert directory.merchant("unionpay", "124") is None
    assert directory.account_of("m1", "unionpay") == "123"
    assert directory.participant_for("pix", "whoever") == "acquirer-a"
    assert directory.participant_for("vietqr", "970") == "acquirer-a"
    assert directory.participant_for("vietqr", "971") is None
    assert "s" not in repr(directory.participants["issuer-a"]).replace("issuer", "")


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.pop(key)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("participants"), "participants"),
        (_without("merchants"), "merchants"),
        (lambda found: found["merchants"][0].pop("id"), "id"),
        (lambda found: found["merchants"][0]["acquirers"].append({"id": "nobody"}), "nobody"),
        (lambda found: found["merchants"][0]["acquirers"].append({"id": "issuer-a"}), "issuer-a"),
        (lambda found: found["merchants"][0]["acquirers"][0].update(weight=-1), "weight"),
        (lambda found: found["merchants"][0]["acquirers"][0].update(weight="nan"), "weight"),
        (lambda found: found["merchants"][0]["acquirers"][0].update(cost_bp="inf"), "cost_bp"),
        (lambda found: found["routes"].append({"scheme": "x", "to": "nobody"}), "nobody"),
    ],
)
def test_what_is_wrong_is_named(spoil: Callable[[dict[str, Any]], object], said: str, tmp_path: Path) -> None:
    found = data()
    spoil(found)
    path = tmp_path / "directory.json"
    path.write_text(json.dumps(found))
    with pytest.raises(DirectoryError, match=said):
        load(path)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "directory.json"
    path.write_text("{")
    with pytest.raises(DirectoryError, match=r"directory\.json"):
        load(path)
