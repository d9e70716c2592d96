"""A page of all models of an environment: how each is watched, what serves, who asks.

Entry point: ``handler.handler``.
"""
