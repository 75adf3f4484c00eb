"""The rule of the benchmark for mitmproxy: one host, the agent's credential replaced, a line for each request."""

import os
import time

from mitmproxy import http

HOST = "api.example.com"
CREDENTIAL = "Bearer " + os.environ["BENCH_TOKEN"]

log = open("/logs/access.log", "a", encoding="utf-8")


def http_connect(flow: http.HTTPFlow) -> None:
    if flow.request.host != HOST:
        flow.response = http.Response.make(403)


# Not `request`: with a body that is streamed, the head is on its way by then.
def requestheaders(flow: http.HTTPFlow) -> None:
    if flow.request.host != HOST:
        flow.response = http.Response.make(403)
        return
    flow.request.headers["authorization"] = CREDENTIAL


def response(flow: http.HTTPFlow) -> None:
    status = flow.response.status_code if flow.response else 0
    log.write(f"{time.time():.3f} {flow.request.method} {flow.request.host} {flow.request.path} {status}\n")
