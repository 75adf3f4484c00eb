"""Python's clients: LIBRARY URL, LIBRARY one of urllib, requests, httpx, httpx2 and websockets."""

import json
import sys


def say(body, **last):
    print(body + "\n" + json.dumps(last))


def by_urllib(url):
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        answer = urlopen(url)
    except HTTPError as error:
        answer = error
    reason = answer.headers.get("x-bottle-reason", "")
    say(answer.read().decode(), status=answer.status, protocol="1.1", reason=reason)


def by_requests(url):
    import requests

    answer = requests.get(url)
    reason = answer.headers.get("x-bottle-reason", "")
    say(answer.text, status=answer.status_code, protocol="1.1", reason=reason)


def by_httpx(url, http2=False):
    import httpx

    with httpx.Client(http2=http2) as client:
        answer = client.get(url)
    reason = answer.headers.get("x-bottle-reason", "")
    protocol = answer.http_version.removeprefix("HTTP/")
    say(answer.text, status=answer.status_code, protocol=protocol, reason=reason)


def by_websockets(url):
    from websockets.sync.client import connect

    messages = ["hello", b"\x00\xff" * 50000, "end"]
    with connect(url, subprotocols=["quince.v2", "quince.v1"]) as socket:
        got = []
        for message in messages:
            socket.send(message)
            got.append(len(socket.recv(timeout=20)))
        protocol = socket.subprotocol
    say("", status=socket.close_code, protocol=protocol, got=got)


if __name__ == "__main__":
    library, url = sys.argv[1:]
    if library == "httpx2":
        by_httpx(url, http2=True)
    else:
        globals()["by_" + library](url)
