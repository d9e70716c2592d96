"""Items that people label: who may see one, whose votes count, when it is decided.

Three functions from one package, each with a role of its own:

* ``router.handler``: predictions that data capture wrote become items
* ``rounds.handler``: steps of the state machine that waits for the votes of one item
* ``review.handler``: the page and its JSON API
"""
