"""Sends the spans that log lines hold to an OpenTelemetry collector."""
