"""A server of the Model Context Protocol over standard streams, written out by hand, that misbehaves on request.

One message is one line of JSON. The first argument is the mode: how it behaves from the start. What it does wrong later is
asked for by calling its tools.
"""

import json
import os
import signal
import subprocess
import sys
import time

MODE = sys.argv[1] if len(sys.argv) > 1 else "well"
ANY = {"type": "object"}
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False}
SUM = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}

tools = {
    "add": {"inputSchema": {"type": "object", "required": ["a", "b"],
                            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
            "outputSchema": SUM},
    "cancelled": {}, "count": {}, "daemonize": {}, "die": {}, "echo": {"inputSchema": TEXT, "description": "Says it again.\x1b[31m"},
    "fail": {}, "file": {}, "flood": {}, "fork": {}, "garbage": {}, "grow": {}, "huge": {}, "image": {}, "lie": {"outputSchema": SUM},
    "long_line": {}, "meet": {}, "odd": {}, "pester": {}, "refuse": {}, "remember": {"inputSchema": TEXT}, "sample": {}, "stall": {},
    "wait": {},
    "whoami": {},
}
memory = []      # what was remembered
calls = []       # names of the tools that were called
waiting = {}     # ids of calls of `wait` without an answer
gone = []        # reasons of cancellations
asking = []      # ids of calls of `cancelled` without an answer
meeting = []     # ids of calls of `meet` without an answer
sampling = {}    # id of the call of `sample`, and the codes of the answers


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def give(id, result):
    send({"id": id, "result": result})


def text(id, words, **more):
    give(id, {"content": [{"type": "text", "text": words}], **more})


def describe(name):
    return {"name": name, "inputSchema": ANY, **tools[name]}


def initialize(id, params):
    if MODE == "mute":
        return
    if MODE == "env_in_error":
        return send({"id": id, "error": {"code": -32000, "message": "my environment: " + json.dumps(dict(os.environ))}})
    version = {"strange": "1999-12-31", "old": "2024-11-05"}.get(MODE, params["protocolVersion"])
    give(id, {"protocolVersion": version, "capabilities": {"tools": {"listChanged": True}},
              "serverInfo": {"name": "scripted", "version": "1"}})


def list_tools(id, params):
    names = sorted(tools)
    if MODE == "pages":
        at = int(params.get("cursor", "0"))
        page = {"tools": [describe(name) for name in names[at:at + 5]]}
        return give(id, {**page, "nextCursor": str(at + 5)} if at + 5 < len(names) else page)
    if MODE == "endless":
        return give(id, {"tools": [], "nextCursor": "on"})
    if MODE == "many":
        return give(id, {"tools": [{"name": f"tool{n}", "inputSchema": ANY} for n in range(1001)]})
    if MODE == "no_list":
        return send({"id": id, "error": {"code": -32601, "message": "no\x07 tools here"}})
    if MODE == "odd_list":
        return give(id, {"tools": "none"})
    if MODE == "bad_schema":
        tools["echo"]["inputSchema"] = {"type": "object", "properties": {"text": {"$ref": "http://127.0.0.1:9/schema"}}}
    give(id, {"tools": [describe(name) for name in names]})


def call(id, params):
    name, arguments = params["name"], params.get("arguments", {})
    calls.append(name)
    if name == "add":
        total = arguments["a"] + arguments["b"]
        text(id, str(total), structuredContent={"sum": total})
    elif name == "echo":
        text(id, arguments["text"])
    elif name == "count":
        text(id, str(calls.count(arguments["of"])))
    elif name == "remember":
        memory.append(arguments["text"])
        text(id, json.dumps(memory))
    elif name == "whoami":
        sys.stderr.write("my environment is " + json.dumps(dict(os.environ)) + "\n")
        sys.stderr.flush()
        text(id, json.dumps({"pid": os.getpid(), "group": os.getpgrp(), "cwd": os.getcwd(), "files": os.listdir(),
                             "env": dict(os.environ), "argv": sys.argv}))
    elif name == "file":
        try:
            with open(arguments["path"], "w" if arguments.get("write") else "rb") as file:
                file.write("x") if arguments.get("write") else file.read(1)
            text(id, "ok")
        except OSError as error:
            text(id, type(error).__name__)
    elif name == "wait":
        waiting[id] = True
        if "note" in arguments:
            open(arguments["note"], "w").close()
    elif name == "cancelled":
        asking.append(id)
        settle()
    elif name == "meet":
        meeting.append(id)
        if len(meeting) == arguments["of"]:
            for other in reversed(meeting):
                text(other, "met")
            meeting.clear()
    elif name == "fail":
        text(id, "it did not work", isError=True)
    elif name == "refuse":
        send({"id": id, "error": {"code": -32050, "message": "not\x1b[2J today " + os.environ.get("SECRET", "")}})
    elif name == "huge":
        text(id, "x" * arguments["bytes"])
    elif name == "image":
        give(id, {"content": [{"type": "text", "text": "see"}, {"type": "image", "data": "aGk=", "mimeType": "image/png"}]})
    elif name == "lie":
        text(id, "3", structuredContent={"sum": "three"})
    elif name == "odd":
        give(id, "not even an object")
    elif name == "garbage":
        sys.stdout.write('Listening on port 3000\n{"jsonrpc": "2.0"\n\n[]\n{"id": 1}\n\x00\xff\n{"jsonrpc":"2.0","id":99999,"result":{}}\n')
        send({"method": "notifications/unheard_of", "params": {"a": 1}})
        text(id, "after garbage")
    elif name == "flood":
        for n in range(2000):
            sys.stderr.write("x" * 1000 + "\n")
        sys.stderr.write("y" * 5_000_000)
        sys.stderr.flush()
        text(id, "after the flood")
    elif name == "long_line":
        sys.stdout.write('{"jsonrpc": "2.0", "id": %s, "result": {"content": [{"type": "text", "text": "' % json.dumps(id))
        for _ in range(100):
            sys.stdout.write("x" * 1_000_000)
        sys.stdout.write('"}]}}\n')
        sys.stdout.flush()
    elif name == "grow":
        tools["grown"] = {}
        send({"method": "notifications/tools/list_changed"})
        text(id, "grown")
    elif name == "fork":
        program = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(3600)"
        child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        child.stdout.readline()
        text(id, str(child.pid))
    elif name == "daemonize":
        # In a session of its own, and nobody's child: its parent ends at once.
        program = ("import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork() and os._exit(0); os.setsid(); "
                   "os.fork() and os._exit(0); print(os.getpid(), flush=True); os.close(1); time.sleep(float(sys.argv[1]))")
        child = subprocess.Popen([sys.executable, "-c", program, str(arguments.get("for", 3600))],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        pid = child.stdout.readline().decode().strip()
        child.wait()
        text(id, pid)
    elif name == "sample":
        sampling["id"], sampling["codes"] = id, {}
        send({"id": "s", "method": "sampling/createMessage", "params": {
            "messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}], "maxTokens": 5}})
        send({"id": "r", "method": "roots/list"})
        send({"id": "e", "method": "elicitation/create", "params": {
            "message": "your password?", "requestedSchema": {"type": "object", "properties": {"p": {"type": "string"}}}}})
        send({"id": "p", "method": "ping"})
    elif name == "pester":
        for n in range(50_000):
            send({"id": f"ping {n}", "method": "ping"})
    elif name == "stall":
        time.sleep(3600)
    elif name == "die":
        sys.stderr.write("going down\n")
        sys.stderr.flush()
        os._exit(arguments.get("code", 7))
    else:
        text(id, "grown up" if name == "grown" else "?")


def settle():
    if gone:
        while asking:
            text(asking.pop(), json.dumps(gone))


def answered(message):
    codes = sampling["codes"]
    codes[message["id"]] = message["error"]["code"] if "error" in message else message["result"]
    if len(codes) == 4:
        text(sampling["id"], json.dumps(codes))


def hear(message):
    method, params = message.get("method"), message.get("params", {})
    if method is None:
        answered(message)
    elif method == "initialize":
        assert params["capabilities"] == {}, params
        initialize(message["id"], params)
    elif method == "tools/list":
        list_tools(message["id"], params)
    elif method == "tools/call":
        call(message["id"], params)
    elif method == "notifications/cancelled":
        if waiting.pop(params["requestId"], False):
            gone.append(params.get("reason", ""))
        settle()


def main():
    if MODE == "die_at_start":
        sys.stderr.write("no such database: " + os.environ.get("SECRET", "") + "\n")
        sys.exit(3)
    if MODE == "die_once" and not os.path.exists("died"):
        open("died", "w").close()
        sys.exit(3)
    if MODE == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        hear(json.loads(line))
    if MODE == "deaf":
        while True:
            time.sleep(3600)


main()
