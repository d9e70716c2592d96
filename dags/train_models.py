"""A DAG per training pipeline: Airflow starts it and waits for its end.

The names stand in a variable of the environment, ``AIRFLOW__TRAINING__PIPELINES``: a JSON list.
"""

import json
import os
from datetime import datetime, timedelta

from airflow import DAG
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerStartPipelineOperator

PIPELINES = json.loads(os.environ["AIRFLOW__TRAINING__PIPELINES"])


def training(pipeline: str) -> DAG:
    """Train when somebody says so; nothing is caught up, and one run at a time is enough."""
    with DAG(
        dag_id=f"train-{pipeline}",
        schedule=None,
        start_date=datetime(2026, 1, 1),
        catchup=False,
        max_active_runs=1,
        tags=["ml-lifecycle"],
        params={"reason": "Airflow"},
    ) as dag:
        SageMakerStartPipelineOperator(
            task_id="train",
            pipeline_name=pipeline,
            pipeline_params={"Reason": "{{ params.reason }}"},
            wait_for_completion=True,
            check_interval=60,
            execution_timeout=timedelta(days=2),
        )
    return dag


for name in PIPELINES:
    globals()[f"train_{name.replace('-', '_')}"] = training(name)
