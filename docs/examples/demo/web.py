"""A small web server that shows what the platform gives to an application. Standard library only."""

import hashlib
import http.server
import json
import os
import time

STARTED = time.time()
RELEASE = os.environ.get("RELEASE", "one")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/healthz":
            ok = os.environ.get("HEALTHY", "true") == "true"
            return self.answer(200 if ok else 503, {"healthy": ok})
        self.answer(200, {
            "release": RELEASE,
            "greeting": read("etc/greeting/message.txt"),
            "secretSha256": hashlib.sha256(read("var/secret/key").encode()).hexdigest(),
            "app": os.environ["BAETYL_APP_NAME"],
            "service": os.environ["BAETYL_SERVICE_NAME"],
            "version": os.environ["BAETYL_APP_VERSION"],
            "node": os.environ["BAETYL_NODE_NAME"],
            "mode": os.environ["BAETYL_RUN_MODE"],
            "pid": os.getpid(),
            "started": STARTED,
        })

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


if os.environ.get("CRASH") == "true":
    raise SystemExit("this release crashes on start")
print("release", RELEASE, "listens", flush=True)
# A Pod has an address and ports of its own; on a machine without Kubernetes the node hands out a port.
in_pod = os.environ["BAETYL_RUN_MODE"] == "kube"
address = ("0.0.0.0", 8080) if in_pod else ("127.0.0.1", int(os.environ["BAETYL_SERVICE_DYNAMIC_PORT"]))
http.server.ThreadingHTTPServer(address, Page).serve_forever()
