// The service worker: stores all files at the first visit, and answers from them. mla-export writes what is above this
// line: FILES, the bytes of each file, and VERSION, which changes with any of them, so that browsers store them again.

const PREFIX = "mla-fairseq ";
const CACHE = `${PREFIX}${VERSION} ${registration.scope}`;
const TOTAL = Object.values(FILES).reduce((sum, bytes) => sum + bytes, 0);

self.addEventListener("install", (event) => event.waitUntil(store()));
self.addEventListener("activate", (event) => event.waitUntil(removeOld().then(() => self.clients.claim())));
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(registration.scope)) event.respondWith(answer(event.request));
});

async function store() {
  const cache = await caches.open(CACHE);
  const report = reporter();
  for (const name of Object.keys(FILES)) {
    const request = new Request(name, { cache: "no-cache" }); // of another version, perhaps
    const response = await fetch(request);
    if (!response.ok) throw new Error(`${name}: ${response.status}`);
    await cache.put(name, new Response(response.body.pipeThrough(report()), response));
  }
}

/** Return a maker of streams that count bytes and tell pages their number, once for each megabyte. */
function reporter() {
  let stored = 0;
  const tell = async () => {
    const clients = await self.clients.matchAll({ includeUncontrolled: true });
    for (const client of clients) client.postMessage({ stored, total: TOTAL });
  };
  const count = (chunk, controller) => {
    const before = stored;
    stored += chunk.byteLength;
    if (Math.floor(stored / 1e6) > Math.floor(before / 1e6)) tell();
    controller.enqueue(chunk);
  };
  return () => new TransformStream({ transform: count });
}

async function answer(request) {
  const name = request.mode === "navigate" ? "./" : request;
  const stored = await (await caches.open(CACHE)).match(name, { ignoreSearch: true });
  return stored ?? fetch(request);
}

/** Remove the files of other versions of this page. */
async function removeOld() {
  const mine = (name) => name.startsWith(PREFIX) && name.endsWith(` ${registration.scope}`) && name !== CACHE;
  for (const name of await caches.keys()) if (mine(name)) await caches.delete(name);
}
