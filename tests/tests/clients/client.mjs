// Node's own clients: `fetch URL`, `fetch-post URL BYTES`, `websocket URL`, `events URL`.
const [what, url, more] = process.argv.slice(2);

const say = (body, last) => console.log(body + "\n" + JSON.stringify(last));

async function get(options) {
  const answer = await fetch(url, options);
  const reason = answer.headers.get("x-bottle-reason") ?? "";
  say(await answer.text(), { status: answer.status, protocol: "1.1", reason });
}

// Says what it got back: each message is sent only after the one before came.
function websocket() {
  const socket = new WebSocket(url, ["quince.v2", "quince.v1"]);
  const messages = ["hello", "x".repeat(100000), "end"];
  const got = [];
  socket.onopen = () => socket.send(messages[0]);
  socket.onmessage = ({ data }) => {
    got.push(data.length);
    if (got.length === messages.length) socket.close(1000);
    else socket.send(messages[got.length]);
  };
  socket.onerror = () => process.exit(1);
  socket.onclose = ({ code }) => say("", { status: code, protocol: socket.protocol, got });
}

// Acknowledges every event as it comes; the destination sends none before that.
async function events() {
  const answer = await fetch(url);
  const ack = url.replace("/stepped", "/ack");
  const delays = [];
  let text = "";
  for await (const piece of answer.body) {
    const now = performance.timeOrigin + performance.now();
    text += Buffer.from(piece).toString();
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const event = JSON.parse(text.slice("data: ".length, end));
      delays.push(Math.round(now * 1000 - event.sent_us));
      await (await fetch(ack)).text();
    }
  }
  say("", { status: answer.status, protocol: "1.1", delays });
}

if (what === "fetch") await get();
else if (what === "fetch-post") await get({ method: "POST", body: "x".repeat(Number(more)) });
else if (what === "websocket") websocket();
else await events();
