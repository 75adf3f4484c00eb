// A destination that speaks HTTP/2 on 8443, with the certificate of the test Internet. What arrived is said in the log of
// the container, which belongs to its first process.
import { createSecureServer } from "node:http2";
import { appendFileSync } from "node:fs";

const { TESTKIT_CERT: cert, TESTKIT_KEY: key } = process.env;
const server = createSecureServer({ cert, key, allowHTTP1: true });
server.on("request", (request, answer) => {
  const { httpVersion: protocol, method, url } = request;
  const headers = Object.entries(request.headers).map(([name, value]) => [name, String(value)]);
  const { pathname: path, searchParams } = new URL(url, "https://api.example.com");
  const query = Object.fromEntries(searchParams);
  const event = { event: "request", method, path, query, protocol, headers };
  appendFileSync("/proc/1/fd/1", JSON.stringify(event) + "\n");
  answer.end("xxxxx");
});
server.listen(8443);
