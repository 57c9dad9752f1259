"""A tool server of the Model Context Protocol that a guest may use for its ends. With an argument it lists that many tools."""

import json
import os
import sys

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False}
ANY = {"type": "object"}
TOOLS = {"echo": TEXT, "environment": ANY, "say": ANY, "wait": ANY}
if len(sys.argv) > 1:
    TOOLS = {f"tool-{n}": ANY for n in range(int(sys.argv[1]))}


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def call(id, name, arguments):
    if name == "wait":
        return
    text = {
        "echo": lambda: str(arguments["text"]),
        "environment": lambda: json.dumps(dict(os.environ)),
        "say": lambda: "x" * arguments["bytes"],
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
