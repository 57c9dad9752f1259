"""The replaced system's hot path: a Dramatiq actor that records PENDING, RUNNING and COMPLETED in Postgres around the same
function as the plugin word-count."""

import json
import os
from functools import cache

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from psycopg_pool import ConnectionPool

QUEUE = "agentry_bench_dramatiq"
DATABASE = os.environ["BENCH_DATABASE"]
broker = RabbitmqBroker(url=os.environ["BENCH_AMQP"], middleware=None)
dramatiq.set_broker(broker)


@cache
def pool() -> ConnectionPool:
    """Connections of this process, opened after the fork."""
    return ConnectionPool(DATABASE, min_size=4, max_size=16, open=True)


def count(task: dict) -> dict:
    text = task["text"]
    return {
        "words": len(text.split()),
        "lines": len(text.splitlines()),
        "characters": len(text),
        "bytes": len(text.encode()),
    }


@dramatiq.actor(queue_name=QUEUE, max_retries=3)
def run_task(task_id: str, task: dict) -> None:
    with pool().connection() as connection:
        connection.execute(
            "UPDATE dramatiq_tasks SET status = 'RUNNING', started_at = now() WHERE task_id = %s", (task_id,)
        )
    output = count(task)
    with pool().connection() as connection:
        connection.execute(
            "UPDATE dramatiq_tasks SET status = 'COMPLETED', result = %s, finished_at = now() WHERE task_id = %s",
            (json.dumps(output), task_id),
        )
