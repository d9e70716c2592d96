"""SageMaker training: channels in, `train` under the `/opt/ml` contract on each host, `model.tar.gz` out.

``jobs`` is the API and the way of a job, ``hosts`` the processes that stand for its instances, ``channels``
what they read, ``checkpoints`` what they keep, ``spot`` capacity that is taken away, ``pools`` instances that
wait for the next job, ``metrics`` what is read from the log, ``tracking`` a store in place of a tracking
server.
"""

from __future__ import annotations

from rehearsal.executors.training_jobs import (
    channels,
    checkpoints,
    hosts,
    jobs,
    metrics,
    pools,
    spot,
    tracking,
)

__all__ = ["channels", "checkpoints", "hosts", "jobs", "metrics", "pools", "spot", "tracking"]
