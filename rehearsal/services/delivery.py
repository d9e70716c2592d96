"""Code connections: kept as declared; the ledger says so."""

from __future__ import annotations

from typing import Any

from rehearsal.services.engine import Call, Service, after

__all__: list[str] = []


@after("codestar-connections", "CreateConnection")
@after("codeconnections", "CreateConnection")
def _connection(service: Service, call: Call, output: dict[str, Any]) -> None:
    record = service.get("Connection", output["ConnectionArn"])
    # A person completes the handshake with the provider in the console.
    service.update(record, ConnectionStatus="PENDING", ConnectionArn=output["ConnectionArn"])
    service.runtime.ledger.recorded(
        "codeconnections",
        call.params["ConnectionName"],
        "the handshake with the provider is made by a person",
    )
