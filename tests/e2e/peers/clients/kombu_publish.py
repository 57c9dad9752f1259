"""Publishes one task with kombu as it comes, and prints the reply: URL EXCHANGE KEY ID."""

import json
import sys

import kombu

url, exchange, key, task = sys.argv[1:]
with kombu.Connection(url) as connection:
    channel = connection.channel()
    answers = kombu.Queue(f"replies-{task}", exclusive=True, auto_delete=True)

    def on_reply(body, message):
        message.ack()
        if message.properties["correlation_id"] == "call-1":
            print(json.dumps(body))
            raise SystemExit

    body = {"id": task, "plugin": "word-count", "input": {"text": "a b"}}
    options = {"reply_to": answers.name, "correlation_id": "call-1"}
    producer = kombu.Producer(channel)
    with kombu.Consumer(channel, [answers], callbacks=[on_reply]):
        producer.publish(body, exchange=exchange, routing_key=key, serializer="json", retry=False, **options)
        connection.drain_events(timeout=60)
sys.exit("no reply")
