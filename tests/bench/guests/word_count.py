"""The plugin word-count in Python, to measure a fresh instance and a call."""

import json

from wit_world.exports import Handler as Export


class Handler(Export):
    def handle(self, task):
        text = json.loads(task.input)["text"]
        counts = {
            "words": len(text.split()),
            "lines": len(text.splitlines()),
            "characters": len(text),
            "bytes": len(text.encode()),
        }
        return json.dumps(counts)
