"""What holds between ``batch.enrich`` and the record: which texts may be sent to Comprehend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks
    from ml_contract.problems import Location

__all__ = ["check_enrich"]


def check_enrich(checks: Checks) -> None:
    """The field is a free text of the record, and one that names people only where that is said."""
    enrich = checks.workload.batch.enrich
    if enrich is None:
        return
    path: Location = ("batch", "enrich", "field")
    field = checks.field(path, enrich.field)
    if field is None:
        return
    if field.type != "string":
        texts = [name for name, one in checks.fields.items() if one.type == "string"]
        checks.wrong(path, f"{enrich.field} is {field.type}; a text is string: {', '.join(texts) or 'none'}")
    elif field.allowed is not None:
        checks.wrong(path, f"{enrich.field} has allowed values, so it is no free text; name another field")
    elif enrich.field == checks.workload.record.identifier:
        checks.wrong(path, f"{enrich.field} is the identifier and no text; name another field")
    if field.sensitive == "pii" and not enrich.allow_pii:
        checks.wrong(
            path,
            f"{enrich.field} is sensitive: pii and would be sent to Comprehend; "
            "set allow_pii: true if that is meant",
        )
    if field.sensitive != "pii" and enrich.allow_pii:
        checks.wrong(
            ("batch", "enrich", "allow_pii"),
            f"{enrich.field} is not marked sensitive: pii, so there is nothing to allow; leave it out",
        )
