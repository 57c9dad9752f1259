"""Publishes one task with kombu as it comes: URL EXCHANGE KEY ID."""

import sys

import kombu

url, exchange, key, task = sys.argv[1:]
with kombu.Connection(url) as connection:
    producer = kombu.Producer(connection.channel())
    body = {"id": task, "plugin": "word-count", "input": {"text": "a b"}}
    producer.publish(body, exchange=exchange, routing_key=key, serializer="json", retry=False)
