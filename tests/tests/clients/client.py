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
    """Under asyncio: the library's other client reads and writes one TLS connection from two threads, which Python 3.13.5
    does not guard, and loses about one request in a thousand before it is sent, with any server."""
    import asyncio
    from websockets.asyncio.client import connect

    messages = ["hello", b"\x00\xff" * 50000, "end"]

    async def converse():
        async with connect(url, subprotocols=["quince.v2", "quince.v1"]) as socket:
            got = []
            for message in messages:
                await socket.send(message)
                got.append(len(await asyncio.wait_for(socket.recv(), timeout=20)))
        say("", status=socket.close_code, protocol=socket.subprotocol, got=got)

    asyncio.run(converse())


if __name__ == "__main__":
    library, url = sys.argv[1:]
    if library == "httpx2":
        by_httpx(url, http2=True)
    else:
        globals()["by_" + library](url)
