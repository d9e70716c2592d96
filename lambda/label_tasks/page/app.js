// The page of the labellers. Signs in with the user pool (authorisation code with PKCE), asks for one item after
// the other and sends labels. Values of records are only ever set as text.

const by = (id) => document.getElementById(id);
const here = location.origin + location.pathname;
const LOOK_AGAIN_MS = 30_000;
let config, about, item = null, busy = false, timer;

const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

async function signIn() {
  const verifier = random(), state = random();
  sessionStorage.setItem("sign-in", JSON.stringify({ verifier, state }));
  const challenge = base64url(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  const query = new URLSearchParams({
    response_type: "code", client_id: config.client_id, redirect_uri: here, scope: config.scope,
    state, code_challenge_method: "S256", code_challenge: challenge,
  });
  location.assign(`${config.sign_in_url}/oauth2/authorize?${query}`);
}

async function redeem(query) {
  const kept = JSON.parse(sessionStorage.getItem("sign-in") ?? "null");
  sessionStorage.removeItem("sign-in");
  history.replaceState(null, "", here);
  if (kept === null || query.get("state") !== kept.state) {
    throw new Error("The sign-in was not started here. Sign in again.");
  }
  if (query.has("error")) throw new Error(`Sign-in refused: ${query.get("error_description") ?? query.get("error")}`);
  const answer = await fetch(`${config.sign_in_url}/oauth2/token`, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "authorization_code", client_id: config.client_id, redirect_uri: here,
      code: query.get("code"), code_verifier: kept.verifier,
    }),
  });
  if (!answer.ok) throw new Error("The sign-in has expired. Sign in again.");
  sessionStorage.setItem("token", (await answer.json()).access_token);
}

function signOut() {
  sessionStorage.clear();
  const query = new URLSearchParams({ client_id: config.client_id, logout_uri: here });
  location.assign(`${config.sign_in_url}/logout?${query}`);
}

async function api(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: { authorization: `Bearer ${sessionStorage.getItem("token")}`, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 401) {
    sessionStorage.removeItem("token");
    show("welcome");
    throw new Error("Your sign-in has ended. Sign in again.");
  }
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw Object.assign(new Error(data.error ?? data.message ?? "The server does not answer. Try again."), { status: answer.status });
  }
  return data;
}

function show(what) {
  for (const id of ["welcome", "item", "nothing"]) by(id).hidden = id !== what;
  by("answers").hidden = what !== "item";
  by("help").hidden = by("sign-out").hidden = what === "welcome";
}

function say(text) { by("status").textContent = text; }

function complain(error) {
  by("problem").textContent = error.message;
  by("problem").hidden = false;
  setTimeout(() => { by("problem").hidden = true; }, 8_000);
}

const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};

function draw(answer) {
  item = answer.task;
  clearTimeout(timer);
  if (item === null) {
    show("nothing");
    say("Nothing waits for you.");
    timer = setTimeout(() => next().catch(complain), LOOK_AGAIN_MS);
    return;
  }
  by("item-title").textContent = item.queue === "adjudication" ? "Others disagree: you decide" : "What is it?";
  by("left").textContent = answer.left === 1 ? "the last one" : `${answer.left} items left`;
  const said = by("said");
  said.hidden = item.said === undefined;
  if (item.said) {
    const titles = Object.fromEntries(about.classes.map((c) => [c.value, c.title]));
    said.textContent = "Said so far: " + item.said.map((s) => `${titles[s.value]} ${s.votes}`).join(", ");
  }
  by("fields").replaceChildren(...item.fields.map((field) => {
    const row = element("div"), name = element("dt", field.title);
    if (field.personal) name.append(" ", element("span", "personal data", "personal"));
    row.append(name, field.value === "" ? element("dd", "not given", "none") : element("dd", field.value));
    return row;
  }));
  show("item");
  scrollTo(0, 0);
  by("item-title").focus({ preventScroll: true });
  say(`${answer.left} items left.`);
}

async function next() { draw(await api("POST", "api/next")); }

async function act(what) {
  if (busy || item === null) return;
  busy = true;
  for (const button of by("answers").querySelectorAll("button")) button.disabled = true;
  try {
    await what(item.task);
  } catch (error) {
    complain(error);
    // Refused for good (somebody else was faster): take the next. Otherwise the item stays for another try.
    if (error.status === undefined || error.status >= 500) return;
  } finally {
    busy = false;
    for (const button of by("answers").querySelectorAll("button")) button.disabled = false;
  }
  if (sessionStorage.getItem("token")) await next().catch(complain);
}

const label = (value) => act((task) => api("POST", `api/tasks/${task}/label`, { label: value }));
const skip = () => act((task) => api("POST", `api/tasks/${task}/skip`, {}));

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || by("answers").hidden) return;
  const place = Number(event.key) - 1;
  if (about.classes[place]) label(about.classes[place].value);
  else if (event.key.toLowerCase() === "s") skip();
  else if (event.key === "?") by("help").open = !by("help").open;
}

async function begin() {
  about = await api("GET", "api/me");
  document.title = by("title").textContent = about.title;
  by("person").textContent = about.adjudicator ? `${about.person}, adjudicator` : about.person;
  by("instructions").textContent = about.instructions;
  by("choices").replaceChildren(...about.classes.map((c, place) => {
    const button = element("button", c.title);
    button.type = "button";
    button.dataset.value = c.value;
    if (place < 9) {
      button.append(element("kbd", String(place + 1)));
      button.setAttribute("aria-keyshortcuts", String(place + 1));
    }
    button.addEventListener("click", () => label(c.value));
    return button;
  }));
  await next();
}

by("sign-in").addEventListener("click", () => signIn().catch(complain));
by("sign-out").addEventListener("click", signOut);
by("skip").addEventListener("click", skip);
by("again").addEventListener("click", () => next().catch(complain));
document.addEventListener("keydown", keys);
try {
  config = await (await fetch("config")).json();
  const query = new URLSearchParams(location.search);
  if (query.has("code") || query.has("error")) await redeem(query);
  if (sessionStorage.getItem("token")) await begin();
  else show("welcome");
} catch (error) {
  show("welcome");
  complain(error);
}
