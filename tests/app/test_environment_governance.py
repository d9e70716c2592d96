"""What an environment says of governance, and what it cannot say."""

from __future__ import annotations

from typing import Any

import pytest

from environments import Audit, Governance, Personas


def test_should_read_up_to_confidential_and_keep_a_year_of_audit_by_default() -> None:
    governance = Governance()
    assert governance.readable == ("public", "internal", "confidential")
    assert (governance.scan_limit_gb, governance.result_days) == (10, 7)
    assert governance.audit == Audit(retention_days=365, data_events=True)
    assert governance.personas == Personas()


def test_should_read_no_further_than_it_says() -> None:
    assert Governance(reads_up_to="public").readable == ("public",)
    assert Governance(reads_up_to="restricted").readable[-1] == "restricted"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Governance(reads_up_to="secret"), "reads_up_to must be one of public.*got 'secret'"),
        (
            lambda: Governance(scan_limit_gb=0, result_days=0),
            "scan_limit_gb must be at least 1, got 0; result_days",
        ),
        (lambda: Audit(retention_days=0), "retention_days must be at least 1, got 0"),
        (lambda: Personas(auditor=("ana",)), "auditor must hold ARNs of IAM roles or users, got 'ana'"),
    ],
)
def test_should_refuse_what_governs_nothing(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
