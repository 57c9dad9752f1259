"""A server of the Model Context Protocol over standard streams that writes in a way of its own; the first argument says which."""

import json
import os
import sys
import time

MODE = sys.argv[1]
STATELESS = "2026-07-28"
methods = []


def line(text):
    sys.stdout.buffer.write(text.encode())
    sys.stdout.flush()


def send(message):
    text = json.dumps(message)
    if MODE == "crlf":
        line(text + "\r\n")
    elif MODE == "bom":
        line("\ufeff" + text + "\n")
    elif MODE == "pretty":
        line(json.dumps(message, indent=2) + "\n")
    elif MODE == "same_line":
        line("Working... done " + text + "\n")
    elif MODE == "noisy":
        line("[INFO] got it {\n{\"level\": 30, \"msg\": \"hi\"}\n\x1b[32m ready \x1b[0m\n{\n" + text + "\nbye\n")
    elif MODE == "batch":
        line("[" + json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}) + ", " + text + "]\n")
    elif MODE == "no_version":
        del message["jsonrpc"]
        line(json.dumps({**message, "error": None} if "result" in message else message) + "\n")
    else:
        line(text + "\n")


def give(id, result):
    send({"jsonrpc": "2.0", "id": str(id) if MODE == "text_id" else id, "result": result})


def refuse(id, code, message, **data):
    error = {"code": code, "message": message}
    send({"jsonrpc": "2.0", "id": None if MODE == "null_id" else id, "error": {**error, "data": data} if data else error})


def hear(message):
    method, params, id = message["method"], message.get("params", {}), message.get("id")
    methods.append(method)
    if id is None:
        return
    meta = params.get("_meta", {})
    if MODE.startswith("stateless"):
        if meta.get("io.modelcontextprotocol/protocolVersion") != STATELESS:
            return refuse(id, -32601 if MODE == "stateless" else -32022, "no such method", supported=[STATELESS])
        assert meta["io.modelcontextprotocol/clientCapabilities"] == {}, meta
        if method == "server/discover":
            return give(id, {"resultType": "complete", "supportedVersions": [STATELESS], "capabilities": {"tools": {}}})
    if MODE == "rejects":
        refuse(id, -32000, "no licence")
    elif MODE == "rejects_silently":
        if method == "initialize":
            refuse(id, -32601, "no such method")
    elif method == "initialize":
        give(id, {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "odd", "version": "1"}})
    elif method == "tools/list":
        give(id, {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ["echo", "fail", "methods"]]})
    elif params["name"] == "fail":
        refuse(id, -32000, "no luck")
    elif params["name"] == "methods":
        give(id, {"content": [{"type": "text", "text": json.dumps(methods)}]})
    else:
        give(id, {"content": [{"type": "text", "text": params["arguments"]["text"]}]})


def main():
    if MODE == "banner":
        line("\n  ** My Server 1.0 **\n\nListening on stdio\n")
    if MODE == "unfinished_banner":
        line("Starting... ")
    if MODE == "slow":
        line("Downloading...\n")
        time.sleep(1)
    if MODE == "ends":
        sys.stderr.write("Traceback (most recent call last):\n  File \"odd.py\"\nModuleNotFoundError: no module 'x' for " + os.environ.get("KEY", "") + "\n")
        sys.exit(1)
    if MODE == "stateless_slow":
        time.sleep(0.3)
    for text in sys.stdin:
        hear(json.loads(text))


main()
