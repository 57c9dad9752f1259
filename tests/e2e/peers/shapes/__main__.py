"""Three providers of language models, played by their own SDKs.

    POST /KIND/CASE/v1/…    a request, refused unless KIND's SDK would send it; answered with CASE
    GET  /cases             what there is to answer, by KIND: the names of the cases

Says its port on a line of its own, and ends when its standard input does.
"""

import http.server
import json
import os
import sys
import threading

from answers import ANSWERS
from strict import CHECKS, Refused


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(200, {kind: sorted(answers) for kind, answers in ANSWERS.items()})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        _, kind, case, version, *_ = self.path.split("/")
        root = f"http://{self.headers['host']}/{kind}/{case}/{version}"
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            CHECKS[kind](root, self.path, headers, json.loads(body))
        except Refused as refused:
            # Each of the three has its words there.
            return self.reply(422, {"error": {"message": f"not as published: {refused}"}})
        self.reply(*ANSWERS[kind][case.replace("~", "/")])

    def reply(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
os._exit(0)
