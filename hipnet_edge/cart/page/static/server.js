// Asking the cart: every error has a code and a sentence, whatever went wrong.

export class Refusal extends Error {
  constructor(
    status,
    { code = "unreachable", message = "The cart does not answer.", advice = "" } = {},
  ) {
    super(message);
    Object.assign(this, { status, code, advice });
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new Refusal(0);
  }
  if (response.status === 304) return { unchanged: true };
  const body = await response.json().catch(() => undefined);
  if (!response.ok) throw new Refusal(response.status, body);
  return { body, tag: response.headers.get("etag") };
}

export const get = async (path) => (await ask(path)).body;

export const getIfChanged = (path, tag) =>
  ask(path, tag ? { headers: { "If-None-Match": tag } } : {});

export const post = async (path, body) => (await ask(path, { method: "POST", body })).body;
