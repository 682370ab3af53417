// The console. It shows what the API says once a second while somebody looks, and does what its buttons say. All text of the API gets
// into the page as text, never as HTML.
"use strict";

const base = document.body.dataset.base;
const main = document.getElementById("main");
const lookInterval = 1000; // ms
const patience = 5000; // ms for one request

// --- The API

class Refused extends Error {} // the API has answered, and says why not

async function api(path, method = "GET", body) {
  const response = await fetch(base + path, {
    method, headers: { Accept: "application/json", ...(body && { "Content-Type": "application/json" }) },
    body: body && JSON.stringify(body), signal: AbortSignal.timeout(method === "GET" ? patience : 30000),
  });
  const answer = await response.json().catch(() => ({ message: `the API answered ${response.status}` }));
  if (response.ok || response.status === 503 && answer.data) return answer; // /health says 503 and all it knows
  if (response.status >= 500) throw new Error(answer.message);
  throw new Refused(answer.message);
}

// --- Making elements

// el makes an element. Attributes that are false are left out; on... are listeners.
function el(tag, attributes = {}, ...children) {
  const e = tag === "svg" || svgTags.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) e[name] = value;
    else if (value !== false && value !== undefined && value !== null) e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children.flat().filter(c => c !== null && c !== undefined && c !== false));
  return e;
}
const svgTags = new Set(["rect", "line", "text", "title", "g"]);

// update changes what is in an element only where it differs, so that the focus, a selection and an open menu stay.
function update(old, fresh) {
  const now = [...old.childNodes], then = [...fresh.childNodes];
  then.forEach((f, i) => {
    const o = now[i];
    if (!o) old.append(f);
    else if (o.nodeType !== f.nodeType || o.nodeName !== f.nodeName || o.dataset?.key !== f.dataset?.key) o.replaceWith(f);
    else if (o.nodeType === Node.TEXT_NODE) { if (o.data !== f.data) o.data = f.data; }
    else {
      o.onclick = f.onclick;
      for (const a of [...o.attributes]) if (!f.hasAttribute(a.name) && a.name !== "open") o.removeAttribute(a.name);
      for (const a of f.attributes) if (o.getAttribute(a.name) !== a.value) o.setAttribute(a.name, a.value);
      update(o, f);
    }
  });
  now.slice(then.length).forEach(o => o.remove());
}

// --- Words

const number = n => Number(n).toLocaleString("en");
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;

function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (s < 60) return `${ms < 10000 ? (ms / 1000).toFixed(1) : s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}

// time shows an instant in the viewer's zone, and in UTC on hover.
function time(iso, form = { dateStyle: "medium", timeStyle: "medium" }) {
  const at = new Date(iso);
  return el("time", { datetime: iso, title: at.toISOString().replace("T", " ").replace("Z", " UTC") }, at.toLocaleString(undefined, form));
}
const ago = iso => el("span", {}, `${span(now() - Date.parse(iso))} ago`);

let clockOffset = 0; // of the API's clock
const now = () => Date.now() + clockOffset;

function by(trigger) {
  switch (trigger?.kind) {
    case "tick": return "its schedule";
    case "key": return `key ${trigger.key}`;
    case "api": return "the API";
    case "retry": return trigger.key ? `a retry with key ${trigger.key}` : "a retry";
  }
  return "an unknown caller";
}

const state = s => el("span", { class: `state ${s}` }, s);
const runLink = id => el("a", { href: `#/run/${encodeURIComponent(id)}` }, el("code", {}, id));

// --- Saying and asking

const said = document.getElementById("said");
function say(text, bad = false) {
  const note = el("p", { class: bad ? "bad" : "" }, text, " ", el("button", { type: "button", "aria-label": "Dismiss", onclick: () => note.remove() }, "×"));
  said.append(note);
  if (!bad) setTimeout(() => note.remove(), 8000);
}

// act does something by the API, and says what came of it.
async function act(path, method, body) {
  try {
    const answer = await api(path, method, body);
    say(answer.message || "Done");
  } catch (error) {
    say(error.message, true);
  }
  look();
}

const dialog = document.getElementById("ask");
// ask shows a dialog with fields, and calls confirmed with their values. One without fields asks whether to go on.
function ask(title, text, verb, fields, confirmed) {
  const inputs = fields.map(field => {
    const input = field.options
      ? el("select", { name: field.name }, field.options.map(o => el("option", { value: o }, o)))
      : el("input", { name: field.name, type: field.type === "boolean" ? "checkbox" : "text", inputmode: ["integer", "number"].includes(field.type) && "numeric", autocomplete: "off" });
    return [field, input];
  });
  const form = el("form", {
    method: "dialog",
    onsubmit: event => {
      if (event.submitter?.value !== "go") return;
      const values = {};
      for (const [field, input] of inputs) {
        try {
          const value = field.type === "boolean" ? input.checked || undefined : parse(field, input.value.trim());
          if (value !== undefined) values[field.name] = value;
        } catch {
          event.preventDefault();
          input.setCustomValidity(`It must be ${field.allowed}`);
          input.reportValidity();
          input.addEventListener("input", () => input.setCustomValidity(""), { once: true });
          return;
        }
      }
      confirmed(values);
    },
  },
    el("h2", { id: "ask-title" }, title), text && el("p", {}, text),
    inputs.map(([field, input]) => el("label", {}, el("span", {}, field.label || field.name), input, field.allowed && el("small", {}, field.allowed))),
    el("p", { class: "buttons" }, el("button", { value: "no" }, "Not now"), el("button", { value: "go", class: "primary" }, verb)));
  dialog.replaceChildren(form);
  dialog.showModal();
}

// parse reads what a person wrote into a field as its type.
function parse(field, text) {
  if (text === "") return undefined;
  switch (field.type) {
    case "string": return text;
    case "integer": if (!/^-?\d+$/.test(text)) throw new Error(); return Number(text);
    case "number": if (!Number.isFinite(Number(text))) throw new Error(); return Number(text);
    case "array": case "object": return JSON.parse(text);
  }
  try { return JSON.parse(text); } catch { return text; }
}

const button = (label, does, extra = {}) => el("button", { type: "button", onclick: does, ...extra }, label);

// --- What is looked at

const seen = { types: [], active: [], waiting: [], schedules: [], processes: [], health: null, last: {}, me: { write: false } };
let rates = {}; // of each active run: where it was, to tell how fast it goes

async function lookAtNow() {
  const [types, schedules, status, processes, health] = await Promise.all([
    api("/job-types"), api("/schedules"), api("/jobs?state=active&pageSize=100"), api("/processes"), api("/health")]);
  const ended = seen.active.filter(before => !status.data.jobs.some(j => j.id === before.id));
  Object.assign(seen, {
    types: types.data.jobTypes, schedules: schedules.data.schedules, active: status.data.jobs, processes: processes.data.processes, health: health.data ?? health,
  });
  if (health.timestamp) clockOffset = Date.parse(health.timestamp) - Date.now();
  for (const job of seen.active) {
    const r = rates[job.id] ??= { since: now(), from: job.progress, points: [] };
    r.points.push([now(), job.progress]);
    r.points = r.points.filter(p => now() - p[0] < 30000);
  }
  if (ended.length > 0 || seen.types.some(t => !(t.name in seen.last))) await lookAtLast();
}

// lookAtLast asks for the last ended run of each job type.
async function lookAtLast() {
  await Promise.all(seen.types.map(async t => {
    const lists = await Promise.all(["completed", "failed", "cancelled"].map(s => api(`/jobs?job=${t.name}&state=${s}&pageSize=1`)));
    const runs = lists.flatMap(l => l.data.jobs).sort((a, b) => Date.parse(b.endedAt) - Date.parse(a.endedAt));
    seen.last[t.name] = runs[0] ?? null;
  }));
}

// --- The view of now

// pace says how fast a run goes, and how long it still takes.
function pace(job) {
  const points = rates[job.id]?.points ?? [];
  if (points.length < 2) return null;
  const [first, last] = [points[0], points.at(-1)];
  const perMs = (last[1] - first[1]) / (last[0] - first[0]);
  return perMs > 0 ? { left: (100 - job.progress) / perMs } : null;
}

function activeRun(job) {
  const workers = seen.processes.filter(p => (p.doing ?? []).some(d => d.job === job.id));
  const goes = pace(job);
  const facts = [
    `attempt ${job.attempt} of ${job.attempts}`,
    job.ranges && `${job.ranges.ended} of ${plural(job.ranges.total, "range")} done`,
    goes && `about ${span(goes.left)} left`,
    job.startedAt && `started ${span(now() - Date.parse(job.startedAt))} ago`,
  ].filter(Boolean);
  return el("div", { class: "active", "data-key": job.id },
    el("progress", { max: 100, value: job.progress, "aria-label": `Progress of ${job.id}` }), el("output", {}, `${job.progress} %`),
    el("p", {}, runLink(job.id), " ", facts.join(" · ")),
    job.waiting && el("p", { class: "waits" }, `Waits ${job.waiting.upstream ? "for its upstream" : "for the database"}: ${job.waiting.for}, for `,
      span(now() - Date.parse(job.waiting.since))),
    workers.length > 0 && el("p", {}, "On ", workers.map((w, i) => [i > 0 && ", ", el("code", {}, w.id)])),
    seen.me.write && button("Cancel", () => ask(`Cancel ${job.id}?`, "It stops where it is. What it has done stays done.", "Cancel the job", [],
      () => act(`/jobs/${encodeURIComponent(job.id)}`, "DELETE"))));
}

function lastRun(job) {
  if (!job) return el("p", { class: "faint" }, "No job has ended yet.");
  return el("p", {}, "Last: ", el("a", { href: `#/run/${encodeURIComponent(job.id)}` }, state(job.state)), " ", ago(job.endedAt),
    job.duration !== undefined && ` in ${span(job.duration)}`,
    job.counts && ` · ${plural(job.counts.processed, "record")}, ${plural(job.counts.failed, "error")}`,
    job.error && el("span", { class: "bad", title: job.error }, ` · ${job.error.length > 120 ? job.error.slice(0, 120) + "…" : job.error}`));
}

function jobType(t) {
  const schedule = seen.schedules.find(s => s.job === t.name);
  const active = seen.active.filter(j => j.job === t.name);
  const now_ = t.paused ? "paused" : active.length > 0 ? "running" : "idle";
  const next = schedule && (t.paused ? "Ticks wait until it is resumed" : ["Next tick in ", el("span", { class: "count" }, span(Date.parse(schedule.next) - now()))]);
  return el("section", { class: "card", "data-key": t.name, "aria-label": t.title },
    el("h2", {}, t.title, " ", state(now_)),
    el("p", {}, next || "It has no schedule", schedule && el("small", {}, ` ${schedule.spec}`)),
    active.map(activeRun),
    lastRun(seen.last[t.name]),
    seen.me.write && el("p", { class: "buttons" },
      button(t.name.endsWith("-sync") ? "Sync now" : "Trigger", () => ask(`Trigger ${t.title}`, "", "Trigger", t.fields, values => act(`/jobs/trigger/${t.name}`, "POST", values)), { class: "primary" }),
      t.paused ? button("Resume", () => act("/jobs/resume", "POST", { job: t.name })) : button("Pause", () => act("/jobs/pause", "POST", { job: t.name })),
      button("Retry failed", () => act("/jobs/retry-failed", "POST", { job: t.name })),
      button("Clean up", () => ask(`Clean up ${t.title}?`, "This removes the jobs that ended more than so many hours ago. The history keeps them.", "Clean up",
        [{ name: "gracePeriodHours", label: "Hours", type: "number", allowed: "0 or more; 24 by default" }], values => act("/jobs/cleanup", "POST", { job: t.name, ...values })))));
}

function health() {
  const h = seen.health;
  if (!h) return null;
  const missing = [...(h.jobs?.missing ?? []), ...(h.jobs?.warnings ?? []), ...["database", "redis"].filter(d => h[d]?.status !== "connected").map(d => `${d === "redis" ? "Redis" : "MongoDB"} is away${h[d]?.error ? `: ${h[d].error}` : ""}`)];
  return missing.length > 0 && el("section", { class: "card warn", "aria-label": "Health" }, el("h2", {}, "Something is missing"), el("ul", {}, missing.map(m => el("li", {}, m))));
}

function processes() {
  const row = p => el("tr", { "data-key": p.id }, el("td", {}, p.role), el("td", {}, el("code", {}, p.id)), el("td", {}, p.version ?? ""),
    el("td", {}, p.startedAt ? span(now() - Date.parse(p.startedAt)) : ""),
    el("td", {}, p.role === "worker" ? (p.doing?.length > 0 ? p.doing.map(d => [runLink(d.job), d.range !== undefined && ` range ${d.range}`, " "]) : "idle") : "keeps the schedules"));
  return el("section", { class: "card", "aria-label": "Processes" }, el("h2", {}, "Workers and schedulers"),
    seen.processes.length === 0 ? el("p", {}, "None lives.") : el("div", { class: "wide" }, el("table", {},
      el("thead", {}, el("tr", {}, ["Role", "Process", "Version", "Up for", "Does"].map(h => el("th", { scope: "col" }, h)))),
      el("tbody", {}, seen.processes.map(row)))));
}

function nowView() {
  const all = seen.me.write && seen.types.length > 1 && el("p", { class: "buttons" },
    seen.types.every(t => t.paused) ? button("Resume all", () => act("/jobs/resume", "POST", { job: "all" })) : button("Pause all", () => act("/jobs/pause", "POST", { job: "all" })),
    button("Retry all failed", () => act("/jobs/retry-failed", "POST", { job: "all" })),
    button("Cancel all waiting", () => ask("Cancel all waiting jobs?", "They are removed. Active ones go on.", "Cancel them", [], () => act("/jobs/cancel-waiting", "POST", { job: "all" }))));
  return el("div", {}, el("h1", {}, "Now"), health(), all, el("div", { class: "cards" }, seen.types.map(jobType)), processes());
}

// --- The history

let page = null; // of the history
let shown = ""; // the query of that page

async function lookAtHistory(query) {
  if (query === shown && page && !query.get("fresh")) return;
  const answer = await api(`/history?${query}`);
  [page, shown] = [answer.data, query];
}

// chart draws the runs of a page over time: how long each took, and whether records or the run failed.
function chart(entries) {
  const runs = entries.filter(e => e.kind === "run" && e.duration !== undefined).reverse();
  if (runs.length < 2) return null;
  const width = 800, height = 120, most = Math.max(...runs.map(r => r.duration), 1), wide = width / runs.length;
  return el("figure", {}, el("svg", { viewBox: `0 0 ${width} ${height + 4}`, role: "img", "aria-label": `How long the last ${runs.length} jobs took, at most ${span(most)}` },
    runs.map((r, i) => {
      const tall = Math.max(2, height * r.duration / most);
      const what = `${r.id}: ${r.state}, ${span(r.duration)}${r.counts ? `, ${plural(r.counts.processed, "record")}, ${plural(r.counts.failed, "error")}` : ""}`;
      return el("rect", { class: `bar ${r.state} ${r.counts?.failed > 0 ? "errors" : ""}`, x: i * wide + .5, y: height + 2 - tall, width: Math.max(1, wide - 1), height: tall }, el("title", {}, what));
    })), el("figcaption", {}, `Duration of the jobs on this page, oldest on the left, at most ${span(most)}; red where the job failed, amber where records did.`));
}

function historyView(query) {
  const choice = (name, label, options) => el("label", {}, el("span", {}, label), el("select", { name }, el("option", { value: "" }, "all"),
    options.map(o => el("option", { value: o, selected: query.get(name) === o }, o))));
  const search = el("form", {
    class: "filters", role: "search", "data-key": `filters ${query}`,
    onsubmit: event => {
      event.preventDefault();
      const wanted = new URLSearchParams([...new FormData(event.target)].filter(([, v]) => v !== "")
        .map(([k, v]) => k === "from" || k === "to" ? [k, new Date(v).toISOString()] : [k, v]));
      location.hash = `#/history?${wanted}`;
    },
  },
    choice("job", "Job type", seen.types.map(t => t.name)), choice("state", "State", ["completed", "failed", "cancelled", "removed"]),
    choice("kind", "Kind", ["run", "pause", "resume", "cleanup", "cancel"]),
    el("label", {}, el("span", {}, "From"), el("input", { type: "datetime-local", name: "from", value: local(query.get("from")) })),
    el("label", {}, el("span", {}, "To"), el("input", { type: "datetime-local", name: "to", value: local(query.get("to")) })),
    el("label", {}, el("span", {}, "Text"), el("input", { type: "search", name: "text", value: query.get("text") ?? "", placeholder: "id, error, record" })),
    el("button", { class: "primary" }, "Search"));
  if (!page) return el("div", {}, el("h1", {}, "History"), search, el("p", {}, "Looking…"));
  const row = e => el("tr", { "data-key": e.id }, el("td", {}, time(e.at)), el("td", {}, e.job), el("td", {}, state(e.state || e.kind)),
    el("td", {}, e.duration !== undefined ? span(e.duration) : ""), el("td", { class: "n" }, e.counts ? number(e.counts.processed) : ""),
    el("td", { class: "n" }, e.counts ? number(e.counts.failed) : ""), el("td", {}, by(e.by)), el("td", {}, runLink(e.id), e.error && el("div", { class: "bad" }, e.error)));
  const older = new URLSearchParams(query);
  older.set("cursor", page.next ?? "");
  return el("div", {}, el("h1", {}, "History"), search, chart(page.entries),
    page.entries.length === 0 ? el("p", {}, "Nothing fits.") : el("div", { class: "wide" }, el("table", {},
      el("thead", {}, el("tr", {}, ["Ended", "Job type", "What", "Took", "Records", "Errors", "By", "ID"].map(h => el("th", { scope: "col" }, h)))),
      el("tbody", {}, page.entries.map(row)))),
    page.next && el("p", {}, el("a", { href: `#/history?${older}` }, "Older")));
}

// local writes an instant as a field for a date and a time has it.
function local(iso) {
  if (!iso) return "";
  const at = new Date(iso);
  return new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

// --- One run

let entry = null; // a run, of the history or of the jobs
let entryID = "";

async function lookAtRun(id) {
  if (entryID !== id) [entry, entryID] = [null, id];
  if (entry?.ended) return;
  try {
    const { data } = await api(`/jobs/${encodeURIComponent(id)}`);
    if (["completed", "failed", "cancelled"].includes(data.state)) {
      const kept = await api(`/history/${encodeURIComponent(id)}`).catch(() => null);
      entry = { ...data, ...kept?.data, ended: Boolean(kept), retriable: data.state === "failed" || data.state === "cancelled" };
    } else {
      entry = data;
    }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    entry = { ...(await api(`/history/${encodeURIComponent(id)}`)).data, ended: true };
  }
}

function runView(id) {
  if (!entry) return el("div", {}, el("h1", {}, id), el("p", {}, "Looking…"));
  const e = entry;
  const table = (caption, heads, rows) => rows.length > 0 && el("section", { class: "card" }, el("h2", {}, caption), el("div", { class: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map(h => el("th", { scope: "col" }, h)))), el("tbody", {}, rows))));
  const facts = [
    ["Job type", e.job], ["Triggered by", by(e.triggeredBy ?? e.by)], ["Data", el("code", {}, JSON.stringify(e.data ?? {}))],
    e.startedAt && ["Started", time(e.startedAt)], (e.endedAt ?? (e.ended && e.at)) && ["Ended", time(e.endedAt ?? e.at)],
    e.duration !== undefined && ["Took", span(e.duration)], e.attempts && ["Attempts", `${e.attempt} of ${e.attempts}`],
    e.counts && ["Records", `${number(e.counts.processed)} processed, ${number(e.counts.updated)} updated, ${number(e.counts.failed)} failed`],
    e.traceId && ["Trace", el("code", {}, e.traceId)], e.error && ["Error", el("span", { class: "bad" }, e.error)], e.target && ["Job", runLink(e.target)],
  ].filter(Boolean);
  const took = r => r.startedAt && r.endedAt ? span(Date.parse(r.endedAt) - Date.parse(r.startedAt)) : "";
  return el("div", {}, el("h1", {}, el("code", {}, id), " ", state(e.state || e.kind)),
    seen.active.filter(j => j.id === id).map(activeRun),
    el("dl", {}, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    seen.me.write && e.retriable && el("p", { class: "buttons" }, button("Retry", async () => { await act(`/jobs/${encodeURIComponent(id)}/retry`, "POST"); entry = null; look(); }, { class: "primary" })),
    table("Attempts", ["Attempt", "Started", "Took", "Outcome", "Worker", "Error"], (e.endedAttempts ?? []).map(a => el("tr", {}, el("td", {}, a.number), el("td", {}, time(a.startedAt)),
      el("td", {}, took(a)), el("td", {}, state(a.outcome)), el("td", {}, el("code", {}, a.worker)), el("td", { class: "bad" }, a.error ?? "")))),
    table("Records that failed", ["Record", "Name", "Reason"], (e.failedRecords ?? []).map(r => el("tr", {}, el("td", {}, el("code", {}, r.id)), el("td", {}, r.name ?? ""), el("td", { class: "bad" }, r.reason)))),
    table(`Ranges (${number(e.rangesTotal ?? 0)})`, ["Range", "Worker", "Started", "Took", "Outcome", "Records", "Errors"], (Array.isArray(e.ranges) ? e.ranges : []).map(r => el("tr", {}, el("td", {}, r.index),
      el("td", {}, el("code", {}, r.worker ?? "")), el("td", {}, r.startedAt ? time(r.startedAt) : ""), el("td", {}, took(r)), el("td", {}, state(r.outcome)),
      el("td", { class: "n" }, r.counts ? number(r.counts.processed) : ""), el("td", { class: "n" }, r.counts ? number(r.counts.failed) : "")))));
}

// --- Looking, again and again

const connection = document.getElementById("connection");
let lost = 0; // since when the API does not answer
let looking = false;

// here says which view the address names.
function here() {
  const [path, query] = location.hash.slice(1).split("?");
  if (path === "/history") return { view: "history", query: new URLSearchParams(query) };
  if (path.startsWith("/run/")) return { view: "run", id: decodeURIComponent(path.slice(5)) };
  return { view: "now" };
}

async function look() {
  if (looking || document.hidden) return;
  looking = true;
  const at = here();
  try {
    if (at.view === "history") await lookAtHistory(at.query);
    else {
      await lookAtNow();
      if (at.view === "run") await lookAtRun(at.id);
    }
    if (lost) say(`The API answers again, after ${span(Date.now() - lost)}`);
    lost = 0;
    connection.replaceChildren();
  } catch (error) {
    if (error instanceof Refused) {
      connection.replaceChildren(el("span", { class: "bad" }, error.message));
    } else {
      lost ||= Date.now();
      connection.replaceChildren(el("span", { class: "bad" }, `The API does not answer, for ${span(Date.now() - lost)}. What you see is from before.`));
    }
  }
  looking = false;
  show();
}

function show() {
  const at = here();
  const fresh = el("main", {}, at.view === "history" ? historyView(at.query) : at.view === "run" ? runView(at.id) : nowView());
  update(main, fresh);
  document.querySelectorAll("nav a").forEach(a => a.setAttribute("aria-current", a.getAttribute("href") === (at.view === "history" ? "#/history" : "#/") ? "page" : "false"));
}

async function start() {
  for (;;) {
    try {
      seen.me = (await api("/whoami")).data;
      break;
    } catch (error) {
      connection.replaceChildren(el("span", { class: "bad" }, error.message));
      await new Promise(done => setTimeout(done, lookInterval));
    }
  }
  addEventListener("hashchange", () => { show(); look(); main.focus({ preventScroll: true }); scrollTo(0, 0); });
  document.addEventListener("visibilitychange", look);
  setInterval(look, lookInterval);
  look();
}
start();
