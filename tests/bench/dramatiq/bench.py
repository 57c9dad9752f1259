"""Submits tasks, then starts the workers, and prints the throughput between the first start and the last end as recorded in
Postgres: BENCH_AMQP=… BENCH_DATABASE=… python bench.py TASKS [PROCESSES THREADS]"""

import json
import subprocess
import sys
import time
import uuid

import psycopg
import tasks

PATIENCE = 300
TABLE = """CREATE TABLE dramatiq_tasks (task_id text PRIMARY KEY, status text NOT NULL, result jsonb,
    created_at timestamptz DEFAULT now(), started_at timestamptz, finished_at timestamptz)"""


def main() -> None:
    count = int(sys.argv[1])
    processes, threads = sys.argv[2:4] if len(sys.argv) > 3 else ("2", "8")
    database = psycopg.connect(tasks.DATABASE, autocommit=True)
    database.execute("DROP TABLE IF EXISTS dramatiq_tasks")
    database.execute(TABLE)
    tasks.broker.declare_queue(tasks.QUEUE, ensure=True)
    tasks.broker.flush_all()
    begun = time.monotonic()
    for _ in range(count):
        task_id = str(uuid.uuid4())
        database.execute("INSERT INTO dramatiq_tasks (task_id, status) VALUES (%s, 'PENDING')", (task_id,))
        tasks.run_task.send(task_id, {"text": "the quick brown fox jumps over the lazy dog"})
    submission = time.monotonic() - begun
    command = [sys.executable, "-m", "dramatiq", "tasks", "--processes", processes, "--threads", threads]
    workers = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(database, count)
    finally:
        workers.terminate()
        workers.wait()
    (seconds,) = database.execute(
        "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM dramatiq_tasks"
    ).fetchone()
    print(
        json.dumps(
            {
                "tasks": count,
                "seconds": seconds,
                "per_second": count / seconds,
                "submitted_per_second": count / submission,
                "settings": f"{processes} processes, {threads} threads each",
            }
        )
    )


def wait(database: psycopg.Connection, count: int) -> None:
    """Returns once every task has completed."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        (done,) = database.execute("SELECT count(*) FROM dramatiq_tasks WHERE status = 'COMPLETED'").fetchone()
        if done == count:
            return
        time.sleep(0.1)
    raise SystemExit(f"only {done} of {count} tasks completed within {PATIENCE} s")


if __name__ == "__main__":
    main()
