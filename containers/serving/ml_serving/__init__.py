"""The serving image: answers ``/ping`` and ``/invocations`` with the scores of one model."""
