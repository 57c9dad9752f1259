"""A small tool server of the Model Context Protocol over standard streams.

`wait` never answers. It writes down that it was called, and what it heard afterwards: that the call was cancelled, or that
its input ended.
"""

import json
import os
import sys

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False}
ANY = {"type": "object"}
TOOLS = {"echo": TEXT, "environment": ANY, "process": ANY, "wait": ANY, "die": ANY}
waiting = {}  # the file of each call of `wait`, by the call's id


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def note(file, word):
    with open(f"{file}.{word}", "w"):
        pass


def call(id, name, arguments):
    if name == "wait":
        waiting[id] = arguments["file"]
        return note(arguments["file"], "called")
    if name == "die":
        os._exit(7)
    text = {
        "echo": lambda: arguments["text"],
        "environment": lambda: json.dumps(dict(os.environ)),
        "process": lambda: str(os.getpid()),
    }[name]()
    send({"id": id, "result": {"content": [{"type": "text", "text": text}]}})


for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if method == "initialize":
        send({"id": id, "result": {
            "protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "mock", "version": "1"}}})
    elif method == "tools/list":
        send({"id": id, "result": {"tools": [{"name": name, "inputSchema": schema} for name, schema in TOOLS.items()]}})
    elif method == "tools/call":
        call(id, params["name"], params.get("arguments", {}))
    elif method == "notifications/cancelled" and params["requestId"] in waiting:
        note(waiting.pop(params["requestId"]), "cancelled")
for file in waiting.values():
    note(file, "ended")
