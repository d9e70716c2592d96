"""The typed blocks of a ``workload.yaml``, a module each; ``spec.workload`` is the whole."""
