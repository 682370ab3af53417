// The console. It shows what the API says, and does what its buttons say. All text of the API gets into the page as text, never
// as HTML. It asks once a second while a person looks, and not at all while the page is hidden.
"use strict";

// A page that was opened with a key in its URL must not ask with it: browsers refuse such requests, and send the key by themselves.
const base = location.origin + document.body.dataset.base;
const main = document.getElementById("main");
const lookInterval = 1000; // ms between two looks at what runs
const restInterval = 10000; // ms between two looks at all the rest, which costs the API more
const readTimeout = 5000, changeTimeout = 30000; // ms for one request
const rateWindow = 10000; // ms over which the rate of a run is measured
const leastRate = 2000; // ms of progress before a time left is worth a look
const noteTime = 10000; // ms for which a note of a success stays

// --- The API

// Refused is the error of a request that the API understood and refused. Any other error may pass.
class Refused extends Error {}

async function api(path, method = "GET", body) {
  let response;
  try {
    response = await fetch(base + path, {
      method, body: body && JSON.stringify(body), headers: body ? { "Content-Type": "application/json" } : {},
      signal: AbortSignal.timeout(method === "GET" ? readTimeout : changeTimeout),
    });
  } catch {
    throw new Error("The API does not answer");
  }
  const answer = await response.json().catch(() => null);
  if (answer && (response.ok || answer.status === "DEGRADED")) return answer; // which is what /health says with 503
  const message = sentence(answer?.message ?? (response.ok ? "the API does not answer in time" : `the API answers ${response.status}`));
  throw response.status >= 400 && response.status < 500 ? new Refused(message) : new Error(message);
}

const list = async path => (await api(path)).data;
const jobPath = id => `/jobs/${encodeURIComponent(id)}`;

// --- Making elements

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const given = value => value !== false && value !== null && value !== undefined;

// fill gives an element its attributes, listeners (on...) and children, as far as they are given.
function fill(e, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) e[name] = value;
    else if (given(value)) e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children.flat(Infinity).filter(child => given(child) && child !== ""));
  return e;
}

// update makes an element like a fresh one, and changes only what differs. So the focus, a selection, what a person has typed and an
// open list stay. Children with a data-key are found by it.
function update(old, fresh) {
  for (const listener of ["onclick", "onsubmit"]) old[listener] = fresh[listener];
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const staying = new Set([...fresh.children].map(c => c.dataset.key));
  for (const c of [...old.children]) if (c.dataset.key && !staying.has(c.dataset.key)) c.remove(); // so that the others find their places
  const keyed = new Map([...old.children].filter(c => c.dataset.key).map(c => [c.dataset.key, c]));
  let at = old.firstChild;
  for (const f of [...fresh.childNodes]) {
    const key = f.dataset?.key, o = key ? keyed.get(key) : at;
    if (!o || o.nodeName !== f.nodeName || o.dataset?.key !== key) {
      old.insertBefore(f, at);
      continue;
    }
    if (o === at) at = at.nextSibling;
    else old.insertBefore(o, at);
    if (o.nodeType !== Node.TEXT_NODE) update(o, f);
    else if (o.data !== f.data) o.data = f.data;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// table makes a table of rows, each with a key and its cells. A number's column has a name that begins with "#".
function table(columns, rows) {
  const name = c => c.replace("#", ""), align = c => c.startsWith("#") && "number";
  return el("table", {},
    el("thead", {}, el("tr", {}, columns.map(c => el("th", { scope: "col", class: align(c) }, name(c))))),
    el("tbody", {}, rows.map(([key, ...cells]) => el("tr", { "data-key": key },
      cells.map((cell, i) => el("td", { class: align(columns[i]), "data-label": name(columns[i]) }, cell))))));
}

// --- Words

const number = n => Number(n).toLocaleString("en");
const rangeNumber = index => index + 1; // people count from 1, as in the terminal
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
const sentence = text => text.charAt(0).toUpperCase() + text.slice(1);
const cut = (text, n) => text.length > n ? `${text.slice(0, n)}…` : text;

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const parts = (a, nameA, b, nameB) => `${a} ${nameA}${b > 0 ? ` ${b} ${nameB}` : ""}`;
  if (s < 1) return `${Math.max(0, Math.round(ms))} ms`;
  if (s < 10 && ms % 1000) return `${(ms / 1000).toFixed(1)} s`;
  if (s < 60) return `${s} s`;
  if (s < 3600) return parts(Math.floor(s / 60), "min", s % 60, "s");
  if (s < 86400) return parts(Math.floor(s / 3600), "h", Math.floor(s % 3600 / 60), "min");
  return parts(Math.floor(s / 86400), "d", Math.floor(s % 86400 / 3600), "h");
}
// seconds is a span that is counted up or down once a second.
const seconds = ms => ms < 1000 ? "0 s" : span(Math.floor(ms / 1000) * 1000);

let clockOffset = 0; // ms by which the API's clock is ahead of this one
const now = () => Date.now() + clockOffset;
const since = iso => now() - Date.parse(iso);

// time shows an instant in the viewer's zone, or other text in its place, and in UTC on hover.
function time(iso, text) {
  const at = new Date(iso);
  return el("time", { datetime: iso, title: at.toISOString().slice(0, 19).replace("T", " ") + " UTC" }, text ?? local(at));
}
// local writes an instant as 2026-11-28 03:12:04, in the viewer's zone.
const local = at => at.toLocaleString("sv");
const ago = iso => time(iso, `${seconds(since(iso))} ago`);

function by(trigger) {
  switch (trigger?.kind) {
    case "tick": return "the schedule";
    case "key": return `key ${trigger.key}`;
    case "api": return "somebody without a key";
    case "retry": return trigger.key ? `a retry by hand with key ${trigger.key}` : "a retry by hand";
  }
  return "unknown";
}

function counts(c) {
  return c ? `${plural(c.processed, "record")}, ${plural(c.failed, "error")}` : "";
}

const state = s => el("span", { class: `state ${s}` }, s);
// failure shows why something failed. That it was cancelled is no failure, and its state says it.
const failure = (text, what) => text && what !== "cancelled" && el("span", { class: "bad" }, text);
const code = text => el("code", {}, text);
const runLink = (id, text) => el("a", { href: `#/run/${encodeURIComponent(id)}` }, text ?? code(id));
const joined = (items, between = ", ") => items.map((item, i) => [i > 0 && between, item]);

// --- Saying and asking

const said = document.getElementById("said");

// say shows a note, which goes after a while unless it tells of an error. It returns the note.
function say(text, bad = false) {
  const note = el("p", { class: bad && "bad" }, el("span", {}, text), el("button", { type: "button", "aria-label": "Dismiss", onclick: () => note.remove() }, "×"));
  said.append(note);
  while (said.children.length > 4) said.firstChild.remove();
  if (!bad) setTimeout(() => note.remove(), noteTime);
  return note;
}

// act does something by the API, and says what came of it. It returns false, and gives the reason to refused, if the API refuses it.
async function act(path, method, body, refused) {
  try {
    const { message, data } = await api(path, method, body);
    const id = data?.jobId ?? data?.id;
    const removed = data && "completed" in data && `: removed ${plural(data.completed, "completed job")} and ${plural(data.failed, "failed job")}`;
    const note = say([message || "Done", removed, data?.coalesced && ". A job that waits already serves it", data?.runAt && [". It starts at ", time(data.runAt)]]);
    if (id && data.state !== "removed") follow(id, note);
    for (const old of said.querySelectorAll(":scope > .bad")) old.remove();
  } catch (error) {
    if (refused && error instanceof Refused) return refused(error.message), false;
    say(error.message, true);
  }
  past.stale = true;
  look(true);
}

// follow adds to a note what becomes of a job, until the note is gone.
async function follow(id, note) {
  const outcome = note.firstChild.appendChild(el("span", {}));
  for (let job; note.isConnected && !job?.endedAt;) {
    try {
      job = await list(jobPath(id));
    } catch {
      return; // the view says that the API is away
    }
    update(outcome, el("span", {}, ": ", runLink(id, `it is ${job.state}`), job.endedAt && job.counts && `, ${counts(job.counts)}`));
    await new Promise(done => setTimeout(done, lookInterval));
  }
}

const dialog = document.getElementById("ask");

// ask shows a dialog with fields, and calls confirmed with their values, and with what shows why they are refused. The dialog stays open if
// confirmed returns false. One without fields asks whether to go on.
function ask(title, text, verb, fields, confirmed) {
  const inputs = fields.map(field => [field, input(field)]), refusal = el("p", { class: "bad", role: "alert" }), go = el("button", { value: "go", class: "primary" }, verb);
  const submitted = async event => {
    if (event.submitter.value !== "go") return;
    event.preventDefault();
    const values = {};
    for (const [field, i] of inputs) {
      try {
        const value = parse(field, i.value.trim());
        if (value !== undefined) values[field.name] = value;
      } catch {
        i.setCustomValidity(`It must be ${field.allowed || field.type}`);
        i.reportValidity();
        i.oninput = () => i.setCustomValidity("");
        return;
      }
    }
    go.disabled = true;
    const done = await confirmed(values, message => { refusal.textContent = message; });
    go.disabled = false;
    if (done !== false && dialog.contains(go)) dialog.close();
  };
  dialog.replaceChildren(el("form", { method: "dialog", autocomplete: "off", onsubmit: submitted },
    el("h2", { id: "ask-title" }, title), text && el("p", {}, text),
    inputs.map(([field, i]) => el("label", {}, el("span", {}, field.label || sentence(field.name.replace(/[A-Z]/g, c => ` ${c.toLowerCase()}`)), field.required && " (required)"), i,
      field.allowed && !field.options && el("small", {}, sentence(field.allowed)))),
    refusal, el("p", { class: "buttons" }, go, el("button", { value: "no", formnovalidate: true }, "Not now"))));
  dialog.showModal();
  if (inputs.length === 0) dialog.querySelector("[value=no]").focus(); // what cannot be undone is not one Enter away
}

// input makes the control for a field.
function input(field) {
  const options = field.type === "boolean" ? [true, false] : field.options?.filter(o => o !== "");
  const common = { name: field.name, required: field.required };
  const byDefault = field.default !== undefined && `${JSON.stringify(field.default).replaceAll('"', "")} (default)`;
  if (options) return el("select", common, !field.required && el("option", { value: "" }, byDefault || "default"),
    options.filter(o => field.required || o !== field.default).map(o => el("option", { value: o }, String(o))));
  if (field.type === "array" || field.type === "object") return el("textarea", { ...common, rows: 3, placeholder: field.type === "array" ? "[…]" : "{…}" });
  return el("input", { ...common, inputmode: ["integer", "number"].includes(field.type) && "numeric", placeholder: byDefault });
}

// parse reads what a person wrote into a field as its type. Nothing is undefined.
function parse(field, text) {
  if (text === "") return undefined;
  switch (field.type) {
    case "string": return text;
    case "boolean": return text === "true";
    case "integer": case "number": {
      if (!/^-?\d+(\.\d+)?$/.test(text) || field.type === "integer" && text.includes(".")) throw new Error("not a number");
      return Number(text);
    }
    case "array": case "object": return JSON.parse(text);
  }
  try { return JSON.parse(text); } catch { return text; } // any type
}

const button = (label, does, primary = false) => el("button", { type: "button", "data-key": label, class: primary && "primary", onclick: does }, label);

// --- What is looked at now

const seen = { me: null, types: [], schedules: [], health: null, active: [], pending: [], processes: [], failed: [], last: {} };
const points = {}; // of each active job: when it was how far
let restAt = 0; // when all the rest was looked at

async function lookAtNow(all) {
  const [active, processes] = await Promise.all([list("/jobs?state=active&pageSize=100"), list("/processes")]);
  const gone = seen.active.some(before => !active.jobs.some(j => j.id === before.id));
  seen.active = active.jobs;
  seen.processes = processes.processes;
  for (const job of seen.active) {
    const p = points[job.id] ??= [];
    p.push({ at: Date.now(), processed: job.counts?.processed ?? 0, progress: job.progress });
    while (p.length > 2 && p[0].at < Date.now() - rateWindow) p.shift();
  }
  for (const id of Object.keys(points)) if (!seen.active.some(j => j.id === id)) delete points[id];
  if (all || gone || Date.now() - restAt >= restInterval || seen.schedules.some(s => since(s.next) > 0 && since(s.next) < restInterval / 2)) await lookAtRest();
}

async function lookAtRest() {
  const [types, schedules, health, waiting, delayed, ...ended] = await Promise.all([
    list("/job-types"), list("/schedules"), api("/health"), list("/jobs?state=waiting"), list("/jobs?state=delayed"),
    ...endedStates.map(s => list(`/jobs?state=${s}`))]);
  restAt = Date.now();
  clockOffset = Date.parse(health.timestamp) - restAt;
  Object.assign(seen, { failed: ended[endedStates.indexOf("failed")].jobs, types: types.jobTypes, schedules: schedules.schedules, health, pending: [...waiting.jobs, ...delayed.jobs] });
  const unknown = seen.types.filter(t => !(t.name in seen.last));
  const firsts = await Promise.all(unknown.flatMap(t => endedStates.map(s => list(`/jobs?job=${t.name}&state=${s}&pageSize=1`))));
  for (const t of unknown) seen.last[t.name] = null;
  for (const job of [...ended, ...firsts].flatMap(l => l.jobs)) {
    if (!(Date.parse(seen.last[job.job]?.endedAt) > Date.parse(job.endedAt))) seen.last[job.job] = job;
  }
}
const endedStates = ["completed", "failed", "cancelled"];

// pace says how many records a run does per second, and how many ms it still needs, as far as that is known. The time before the first
// records does not count.
function pace(job) {
  const known = points[job.id] ?? [], moved = known.findIndex(p => p.progress > known[0].progress || p.processed > known[0].processed);
  const [first, last] = [known[Math.max(0, moved - 1)], known.at(-1)];
  const ms = last?.at - first?.at;
  if (!ms) return {};
  const perSecond = (last.processed - first.processed) / ms * 1000;
  const left = job.counts && job.total !== undefined ? (job.total - last.processed) / perSecond * 1000 : (100 - last.progress) / (last.progress - first.progress) * ms;
  return { perSecond: job.counts && perSecond >= 0 ? perSecond : undefined, left: ms >= leastRate && left >= 0 && left < Infinity ? left : undefined };
}

function activeRun(job) {
  const share = job.total > 0 && job.counts ? Math.min(100, 100 * job.counts.processed / job.total) : job.progress;
  const { perSecond, left } = pace(job);
  const facts = [
    job.counts && `${number(job.counts.processed)}${job.total !== undefined ? ` of ${number(job.total)}` : ""} records`,
    job.counts?.failed > 0 && el("span", { class: "bad" }, plural(job.counts.failed, "error")),
    perSecond !== undefined && `${number(Math.round(perSecond))} records/s`, left !== undefined && !job.waiting && `about ${span(Math.ceil(left / 1000) * 1000)} left`,
    job.ranges && `${number(job.ranges.ended)} of ${plural(job.ranges.total, "range")} done`, `attempt ${job.attempt} of ${job.attempts}`,
    job.startedAt && ["for ", time(job.startedAt, seconds(since(job.startedAt)))],
  ].filter(Boolean);
  const workers = seen.processes.map(p => [p, (p.doing ?? []).filter(d => d.job === job.id)]).filter(([, doing]) => doing.length > 0);
  const ranges = doing => doing.filter(d => d.range !== undefined).map(d => rangeNumber(d.range)).sort((a, b) => a - b);
  return el("div", { class: "run", "data-key": job.id },
    el("progress", { max: 100, value: share, "aria-label": `Progress of ${job.id}` }), el("span", { class: "percent" }, `${Math.floor(share)} %`),
    el("p", {}, runLink(job.id), el("span", { class: "once" }, whose(job))), el("p", {}, joined(facts.map(fact => el("span", { class: "once" }, fact)), " · ")),
    job.workerLost && el("p", { class: "bad" }, "Its worker is lost. ", job.rescueWithin !== undefined ? `It is put back in at most ${span(Math.ceil(job.rescueWithin / 1000) * 1000)}; then it waits its turn.`
      : seen.processes.some(p => p.role === "worker") ? "It is put back soon; then it waits its turn." : "No other one lives."),
    job.rescues && el("p", { class: "warn" }, rescued(job.rescues.at(-1)), job.rescues.length > 1 && ` Before that, ${plural(job.rescues.length - 1, "other rescue")}.`),
    job.waiting && (goesOn(job) ? el("p", { class: "warn" }, "A part of it waits: ", job.waiting.for) : waitsFor(job.waiting)),
    workers.length > 0 && el("p", {}, "On ", joined(workers.map(([p, doing]) => [code(p.id), ranges(doing).length > 0 && ` (range ${ranges(doing).join(", ")})`]))),
    cancelButton(job));
}

const cancelButton = job => seen.me.write && button(job.state === "active" ? "Cancel" : "Remove", () => ask(`${job.state === "active" ? "Cancel" : "Remove"} this job?`,
  [code(job.id), job.state === "active" ? " stops where it is. What it has done stays done. It can be retried, from the beginning." : " will not run."], job.state === "active" ? "Cancel the job" : "Remove the job", [],
  () => act(jobPath(job.id), "DELETE")));

// goesOn reports whether a job has done anything since it began to wait for something: then only some of its batches wait.
function goesOn(job) {
  const from = points[job.id]?.find(p => p.at + clockOffset >= Date.parse(job.waiting.since));
  return from && from.processed < points[job.id].at(-1).processed;
}

// whose says what kind of run a job is, and who made it.
const whose = job => ` ${[job.data?.syncType, `by ${by(job.triggeredBy)}`].filter(Boolean).join(", ")}`;

const clock = iso => time(iso, local(new Date(iso)).slice(11));

// waitsFor says what a job waits for that has begun. That a server does not answer is known only once something has failed.
function waitsFor({ upstream, slow, since: from, for: what }) {
  const name = upstream ? "its upstream" : "the database", long = el("span", { class: "once" }, `(${seconds(since(from))})`);
  return slow ? el("p", { class: "warn" }, `It waits for ${name} since `, clock(from), " ", long, `, which is slow, or away: ${what}`)
    : el("p", { class: "bad" }, `It waits for ${name}, which ${upstream ? "is away" : "does not answer"} since `, clock(from), " ", long, `: ${what}`);
}

// rescued says that a worker was lost, and which one went on.
const rescued = r => ["Worker ", code(r.lostWorker ?? "(unknown)"), " was lost. ", code(r.worker), ` went on${r.range === undefined ? "" : ` with range ${rangeNumber(r.range)}`} at `, clock(r.at), "."];

// reason says why a job that has not begun, or waits for its next attempt, does not go on.
function reason(job) {
  const type = seen.types.find(t => t.name === job.job), ofType = j => j.job === job.job;
  if (since(job.nextAttemptAt) < 0) {
    const when = [time(job.nextAttemptAt), " (in ", time(job.nextAttemptAt, seconds(-since(job.nextAttemptAt))), ")"];
    return [job.waiting && waitsFor(job.waiting), el("p", {}, job.waiting ? "It is tried again at " : job.attempt > 0 ? `Attempt ${job.attempt} of ${job.attempts} has failed. The next one begins at ` : "It waits for its time: ",
      when, type?.paused && `, or when ${type.title} is resumed`, ".")];
  }
  const active = seen.active.filter(j => ofType(j) && !j.workerLost && j.id !== job.id), waiting = seen.pending.filter(j => ofType(j) && j.state === "waiting").map(j => j.id);
  const before = waiting.includes(job.id) ? waiting.indexOf(job.id) : waiting.length; // they are in the order in which they begin
  const turns = [active.length >= (type?.overall ?? Infinity) && ["until ", joined(active.slice(0, 3).map(j => runLink(j.id))), " has ended"], before > 0 && `after ${plural(before, "other job")} that ${before === 1 ? "waits" : "wait"}`].filter(Boolean);
  return el("p", {}, "It waits ", type?.paused ? `until ${type.title} is resumed` : !seen.processes.some(p => p.role === "worker") ? "for a worker: none lives" :
    turns.length > 0 ? ["its turn: ", joined(turns, ", and ")] : ["for a worker with a free place", seen.health?.database.status === "disconnected" && ". The database is away, or slow"], ".");
}

function pendingRun(job) {
  return el("div", { class: "run", "data-key": job.id }, el("p", {}, state(job.state), " ", runLink(job.id), el("span", { class: "once" }, whose(job))), reason(job), job.error && !job.waiting && el("p", {}, failure(cut(job.error, 300))), cancelButton(job));
}

function lastRun(job) {
  if (!job) return el("p", { class: "faint" }, "No job has ended yet.");
  return el("p", {}, "Last: ", runLink(job.id, state(job.state)), " ", ago(job.endedAt), job.duration !== undefined && ` in ${span(job.duration)}`, `, by ${by(job.triggeredBy)}`,
    job.counts && [" · ", el("span", { class: "once" }, counts(job.counts))], job.error && job.state !== "cancelled" && [" · ", failure(cut(job.error, 120))]);
}

const control = (verb, job) => button(verb, () => act(`/jobs/${verb.split(" ")[0].toLowerCase()}`, "POST", { job }));

// bulk are the buttons that change many jobs: those of a job type, or of all.
const bulk = (job, title) => [
  button("Retry failed", async () => {
    const failed = await list(`/jobs?job=${job}&state=failed&pageSize=1`).catch(error => void say(error.message, true));
    if (failed?.total === 0) say(`${sentence(title)}: no job has failed`);
    else if (failed) ask(`Retry ${plural(failed.total, "failed job")} of ${title}?`, "Each gets all of its attempts again. Cancelled jobs stay.", `Retry ${number(failed.total)}`, [], () => act("/jobs/retry-failed", "POST", { job }));
  }),
  button("Cancel waiting", () => ask(`Cancel the waiting jobs of ${title}?`, "They are removed. Active and delayed jobs stay.", "Cancel them", [], () => act("/jobs/cancel-waiting", "POST", { job }))),
  button("Clean up", () => ask(`Clean up ${title}?`, "Removes the jobs that ended longer ago than this. They can not be retried then. The history keeps them.", "Clean up",
    [{ name: "gracePeriodHours", label: "Hours", type: "number", default: 24, allowed: "a number from 0 to 8760" }], (values, refused) => act("/jobs/cleanup", "POST", { job, ...values }, refused))),
];

const pendingShown = 5;

function jobType(t) {
  const schedule = seen.schedules.find(s => s.job === t.name);
  const active = seen.active.filter(j => j.job === t.name), pending = seen.pending.filter(j => j.job === t.name);
  const next = !schedule ? "No schedule" : t.paused ? "Its ticks wait until it is resumed" : ["Next tick in ", time(schedule.next, seconds(Math.max(0, -since(schedule.next))))];
  const verb = t.name.endsWith("-sync") ? "Sync now" : "Trigger", failed = seen.failed.filter(j => j.job === t.name).length;
  const trigger = () => ask(`${verb}: ${t.title}`, t.paused && "It is paused: the job waits until it is resumed.", verb, t.fields,
    (values, refused) => act(`/jobs/trigger/${t.name}`, "POST", values, refused));
  return el("section", { class: "card", "data-key": t.name, "aria-label": t.title },
    el("h2", {}, t.title, " ", active.length > 0 && state("active"), " ", t.paused && state("paused"), active.length === 0 && !t.paused && state("idle")),
    el("p", {}, next, schedule && el("small", {}, ` ${schedule.spec}`)),
    active.map(activeRun),
    pending.slice(0, pendingShown).map(pendingRun), pending.length > pendingShown && el("p", {}, `and ${number(pending.length - pendingShown)} or more wait`),
    lastRun(seen.last[t.name]), failed > 0 && el("p", { class: "bad" }, el("a", { href: `#/history?job=${t.name}&state=failed` }, plural(failed, "failed job")), " can be retried."),
    seen.me.write && el("p", { class: "buttons" }, button(verb, trigger, true), control(t.paused ? "Resume" : "Pause", t.name), bulk(t.name, t.title)));
}

function health() {
  const h = seen.health;
  const away = [["database", "MongoDB"], ["redis", "Redis"]].filter(([d]) => h?.[d].status !== "connected").map(([d, name]) => h?.[d].error ??
    (h?.[d].responseTime < 1000 ? `${name} does not answer` : `${name} has not answered the API within ${span(h?.[d].responseTime)}: it is away, or slow`));
  const missing = (h?.jobs.missing ?? []).filter(m => m !== "Redis").map(m => `There is not ${m}`);
  const problems = [...away, ...missing, ...(h?.jobs.warnings ?? []).map(sentence)];
  return h && problems.length > 0 && el("section", { class: "card warn", "data-key": "health", "aria-label": "Health" }, el("h2", {}, "Something is missing"), el("ul", {}, problems.map(p => el("li", {}, p))));
}

function processes() {
  const does = p => {
    if (p.role !== "worker") return "enqueues a job at each tick";
    const jobs = [...new Set((p.doing ?? []).map(d => d.job))];
    const ranges = id => p.doing.filter(d => d.job === id && d.range !== undefined).map(d => rangeNumber(d.range));
    return jobs.length === 0 ? "waits for a job" : el("span", {}, joined(jobs.map(id => [runLink(id), ranges(id).length > 0 && ` range ${ranges(id).join(", ")}`])));
  };
  return el("section", { class: "card", "data-key": "processes", "aria-label": "Workers and schedulers" }, el("h2", {}, "Workers and schedulers"),
    seen.processes.length > 0 && el("p", { class: "faint" }, ["A name has the host, the process ID, and a random end. So ", code(seen.processes[0].id), ` is process ${seen.processes[0].id.split(":")[1]} on ${seen.processes[0].id.split(":")[0]}.`]),
    seen.processes.length === 0 ? el("p", {}, "There is none.") : table(["Role", "Process", "Version", "Up for", "What it does"],
      seen.processes.map(p => [p.role + p.id, p.role, code(p.id), p.version, p.startedAt && time(p.startedAt, seconds(since(p.startedAt))), does(p)])));
}

function nowView() {
  return el("main", {}, el("h1", {}, "Now"), health(), el("div", { class: "cards", "data-key": "cards" }, seen.types.map(jobType)),
    seen.me.write && seen.types.length > 1 && el("section", { class: "card", "data-key": "all", "aria-label": "All job types" }, el("h2", {}, "All job types"),
      el("p", { class: "buttons" }, control("Pause all", "all"), control("Resume all", "all"), bulk("all", "all job types"))),
    processes());
}

// --- The history

const pageSize = 50, chartPage = 100, chartPages = 12; // entries of the list, and of the chart
const past = { query: null, page: null, stale: true, chart: { query: null, runs: [], pages: 0, next: null, done: true } };

async function lookAtHistory(query) {
  if (seen.types.length === 0) seen.types = (await list("/job-types")).jobTypes;
  if (String(query) !== past.query || past.stale) {
    const page = await list(`/history?${new URLSearchParams([...query, ["limit", pageSize]])}`);
    const ofRuns = new URLSearchParams(query);
    ofRuns.delete("cursor");
    if (past.stale || String(ofRuns) !== past.chart.query) {
      past.chart = { query: String(ofRuns), runs: [], pages: 0, next: null, done: (query.get("kind") ?? "run") !== "run" };
    }
    Object.assign(past, { query: String(query), page, stale: false });
  }
  // The chart has more runs than the list, so that weeks are seen at once. If a request fails, the next look goes on from here.
  for (const chart = past.chart, hash = location.hash; !chart.done && location.hash === hash;) {
    const asked = new URLSearchParams(chart.query);
    asked.set("kind", "run");
    asked.set("limit", chartPage);
    if (chart.next) asked.set("cursor", chart.next);
    const { entries, next } = await list(`/history?${asked}`);
    chart.runs.push(...entries);
    chart.next = next;
    chart.done = !next || ++chart.pages === chartPages;
    show();
  }
}

// chart draws runs over time: how long they took, their records and their errors. A column is as long a time for each. One in which a
// job failed is marked over the whole height, so that a bad night is seen at once.
function chart(runs, width) {
  if (runs.length < 2) return null;
  const began = r => Date.parse(r.startedAt ?? r.at);
  const from = Math.min(...runs.map(began)), to = Math.max(...runs.map(began)) + 1;
  const n = Math.max(1, Math.min(Math.floor(width / 8), 160, Math.ceil((to - from) / 10000))), each = (to - from) / n, wide = width / n;
  const columns = Array.from({ length: n }, (_, i) => ({ from: from + i * each, runs: [] }));
  for (const r of runs) columns[Math.min(n - 1, Math.floor((began(r) - from) / each))].runs.push(r);
  for (const c of columns) {
    c.failed = c.runs.filter(r => r.state === "failed").length;
    c.cancelled = c.runs.filter(r => r.state === "cancelled").length;
    c.duration = Math.max(0, ...c.runs.map(r => r.duration ?? 0));
    for (const what of ["processed", "failed"]) c[`${what}Records`] = c.runs.reduce((sum, r) => sum + (r.counts?.[what] ?? 0), 0);
    c.says = `${local(new Date(c.from))} to ${local(new Date(c.from + each))}: ${plural(c.runs.length, "job")}, ${c.failed} failed, ${c.cancelled} cancelled; the longest ${span(c.duration)}; ` +
      counts({ processed: c.processedRecords, failed: c.failedRecords });
  }
  const rows = [["Duration", "duration", span], ["Records", "processedRecords", number], ["Errors", "failedRecords", number]];
  const tall = 56, gap = 24, height = rows.length * (tall + gap) + 20;
  const drawn = columns.map((c, i) => {
    if (c.runs.length === 0) return null;
    return svg("a", { href: `#/history?${narrowed(c.runs)}`, "aria-label": c.says, tabindex: c.failed > 0 ? 0 : -1, class: c.failed > 0 ? "column failed" : c.failedRecords > 0 ? "column errors" : c.cancelled > 0 ? "column cancelled" : "column" },
      svg("title", {}, c.says), svg("rect", { class: "back", x: i * wide, y: 0, width: wide, height: height - 20 }),
      rows.map(([, what], row) => {
        const most = Math.max(...columns.map(c => c[what]));
        const h = c[what] > 0 ? Math.max(2, tall * c[what] / most) : 0;
        return h > 0 && svg("rect", { class: `bar ${what}`, x: i * wide + .5, y: row * (tall + gap) + gap + tall - h, width: Math.max(1, wide - 1), height: h });
      }));
  });
  const labels = rows.map(([name, what, words], row) => [
    svg("text", { x: 0, y: row * (tall + gap) + gap - 7 }, `${name}, at most ${words(Math.max(...columns.map(c => c[what])))}`),
    svg("line", { x1: 0, x2: width, y1: row * (tall + gap) + gap + tall + .5, y2: row * (tall + gap) + gap + tall + .5 })]);
  const marks = Math.max(1, Math.floor(width / 250)); // spaces between the times
  const times = Array.from({ length: marks + 1 }, (_, i) => svg("text", { x: i * width / marks, y: height - 4, "text-anchor": i === 0 ? "start" : i < marks ? "middle" : "end" },
    local(new Date(from + i * (to - from) / marks)).slice(0, to - from < 1800000 ? 19 : 16)));
  const failed = runs.filter(r => r.state === "failed").length, errors = runs.reduce((sum, r) => sum + (r.counts?.failed ?? 0), 0);
  return el("figure", {}, svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Duration, records and errors over time" }, drawn, labels, times),
    el("figcaption", {}, `${past.chart.next ? "The last " : ""}${plural(runs.length, "job")} in ${span(to - from)}: ${number(failed)} failed, ${plural(errors, "error")}. `,
      `A column is ${span(each)}; red: a job failed, amber: records failed, grey: a job was cancelled. A column leads to its jobs.`));
}

// narrowed returns the query for the jobs of a column.
function narrowed(runs) {
  const ends = runs.map(r => Date.parse(r.at)), query = new URLSearchParams(past.chart.query), minute = 60000;
  query.set("from", new Date(Math.floor(Math.min(...ends) / minute) * minute).toISOString());
  query.set("to", new Date(Math.ceil((Math.max(...ends) + 1) / minute) * minute).toISOString());
  return query;
}

function historyView(query) {
  const choice = (name, label, options) => el("label", {}, el("span", {}, label), el("select", { name }, el("option", { value: "" }, "all"),
    options.map(o => el("option", { value: o, selected: query.get(name) === o }, o))));
  const field = (name, label, type, value, more) => el("label", {}, el("span", {}, label), el("input", { type, name, value, ...more }));
  const search = event => {
    event.preventDefault();
    const given = [...new FormData(event.target)].filter(([, value]) => value !== "");
    const wanted = new URLSearchParams(given.map(([name, value]) => [name, name === "from" || name === "to" ? new Date(value).toISOString() : value]));
    past.stale = true; // the same search looks again
    location.hash = `#/history?${wanted}`;
    look();
  };
  const parts = [el("h1", {}, "History"), el("form", { class: "filters", role: "search", "data-key": `filters ${query}`, onsubmit: search },
    choice("job", "Job type", seen.types.map(t => t.name)), choice("state", "State", [...endedStates, "removed"]), choice("kind", "Kind", ["run", "pause", "resume", "cleanup", "cancel"]),
    field("from", "From", "datetime-local", forField(query.get("from"))), field("to", "To", "datetime-local", forField(query.get("to"))),
    field("text", "Text", "search", query.get("text"), { placeholder: "ID, error or record", maxlength: 200 }),
    el("button", { class: "primary" }, "Search"), button("Look again", () => { past.stale = true; look(); }))];
  if (!past.page) return el("main", {}, parts, el("p", {}, refused || "Looking…"));
  const row = e => [e.id, time(e.at), e.job, state(e.state || e.kind), e.duration !== undefined && span(e.duration), e.counts && number(e.counts.processed),
    e.counts && el("span", { class: e.counts.failed > 0 && "bad" }, number(e.counts.failed)), by(e.by), [runLink(e.id), e.target && el("div", {}, "of ", runLink(e.target)), e.error && el("div", {}, failure(cut(e.error, 300), e.state))]];
  const older = new URLSearchParams(query);
  older.set("cursor", past.page.next ?? "");
  return el("main", {}, parts, refused && el("p", { class: "bad" }, refused), chart(past.chart.runs, contentWidth()),
    past.page.entries.length === 0 ? el("p", {}, "Nothing fits.") : table(["Ended", "Job type", "What", "Took", "#Records", "#Errors", "By", "ID and error"], past.page.entries.map(row)),
    past.page.next && el("p", {}, el("a", { href: `#/history?${older}` }, "Older")));
}

// forField writes an instant as a field for a date and a time has it.
const forField = iso => iso && local(new Date(iso)).replace(" ", "T").slice(0, 16);

const contentWidth = () => {
  const style = getComputedStyle(main);
  return Math.floor(main.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
};

// --- One run

const run = { id: null, entry: null, kept: false }; // kept: the history has it, so it does not change any more

async function lookAtRun(id) {
  if (run.id !== id) Object.assign(run, { id, entry: null, kept: false });
  if (run.kept && !seen.active.some(j => j.id === id)) return;
  const from = path => list(path).catch(error => { if (!(error instanceof Refused)) throw error; return null; });
  const job = await from(jobPath(id));
  if (job && !job.endedAt) return void Object.assign(run, { entry: job, kept: false });
  const entry = await from(`/history/${encodeURIComponent(id)}`);
  if (!job && !entry) throw new Refused(`Neither the jobs nor the history have ${id}`);
  // A job gets into the history a moment after its end: till then a retried one has the entry of before. Where no history is kept it never does.
  const before = job && entry && (entry.state !== job.state || Date.parse(entry.at) < Date.parse(job.endedAt) - 5000);
  const kept = before ? null : entry;
  Object.assign(run, { entry: { ...job, ...kept, canRetry: job?.state === "failed" || job?.state === "cancelled" }, kept: Boolean(kept) || since(job.endedAt) > 60000 });
}

function runView(id) {
  const e = run.id === id && run.entry;
  if (!e) return el("main", {}, el("h1", {}, code(id)), el("p", {}, refused || "Looking…"));
  const trigger = e.triggeredBy ?? e.by, isEarlier = a => Date.parse(a.endedAt) <= Date.parse(trigger?.at), earlier = (e.endedAttempts ?? []).filter(isEarlier);
  const alone = e.endedAt && e.counts ? e.counts.processed - e.counts.updated - e.counts.failed : 0;
  const took = r => r.startedAt && r.endedAt && span(Date.parse(r.endedAt) - Date.parse(r.startedAt));
  const facts = [
    ["Job type", e.job], ["By", [by(trigger), trigger?.at && [" at ", time(trigger.at), earlier.length > 0 && `, after ${plural(earlier.length, "earlier attempt")}: see below`]]], e.target && ["Job", runLink(e.target)],
    e.data && ["Data", code(JSON.stringify(e.data))],
    e.startedAt && ["Started", time(e.startedAt)], (e.endedAt ?? e.at) && [e.kind && e.kind !== "run" ? "At" : "Ended", time(e.at ?? e.endedAt)],
    e.duration !== undefined && ["Took", span(e.duration)], e.attempt > 0 && ["Attempts", `${e.attempt} of ${e.attempts}`],
    e.counts && ["Records", `${number(e.counts.processed)} processed, ${number(e.counts.updated)} updated, ${number(e.counts.failed)} failed${alone > 0 ? `, ${number(alone)} left alone: gone, or a later job was there first` : ""}`],
    e.removed && ["Removed", `${plural(e.removed.completed, "completed job")}, ${plural(e.removed.failed, "failed job")}`],
    e.result && !("usersProcessed" in e.result) && ["Result", code(JSON.stringify(e.result))], e.result?.warnings && ["Warnings", joined(e.result.warnings, "; ")],
    e.traceId && ["Trace", code(e.traceId)], e.error && !["cancelled", "completed"].includes(e.state) && ["Error", failure(e.error)],
  ].filter(Boolean);
  const card = (title, items, columns, row, before) => items?.length > 0 &&
    el("section", { class: "card", "data-key": title, "aria-label": title }, el("h2", {}, title), before, table(columns, items.map(row)));
  const ranges = Array.isArray(e.ranges) ? e.ranges : [];
  const active = seen.active.filter(j => j.id === id);
  return el("main", {}, el("h1", {}, code(id), " ", state(e.state || e.kind)),
    active.map(activeRun),
    el("dl", {}, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    seen.me.write && e.canRetry && el("p", { class: "buttons" }, button("Retry", async () => { run.kept = false; await act(`${jobPath(id)}/retry`, "POST"); }, true), el("small", {}, " It gets all of its attempts again.")),
    active.length === 0 && ["waiting", "delayed"].includes(e.state) && [reason(e), el("p", { class: "buttons" }, cancelButton(e))],
    card("Attempts", e.endedAttempts, ["Attempt", "Started", "Took", "Outcome", "Worker", "Error"],
      (a, i) => [i, [a.number, isEarlier(a) && ", before the retry"], time(a.startedAt), took(a), state(a.outcome), code(a.worker), failure(a.error, a.outcome)]),
    card("Lost workers", e.rescues, ["Lost worker", "Had", "Went on", "At"],
      (r, i) => [i, code(r.lostWorker ?? "(unknown)"), r.range === undefined ? "the run" : `range ${rangeNumber(r.range)}`, code(r.worker), time(r.at)]),
    card("Records that failed", e.failedRecords, ["Name", "Record", "Reason"], r => [r.id, r.name, code(r.id), el("span", { class: "bad" }, r.reason)]),
    card(`Ranges: ${number(e.rangesTotal ?? 0)}`, ranges, ["Range", "Worker", "Started", "Took", "Outcome", "#Records", "#Errors", "Error"],
      r => [r.index, rangeNumber(r.index), [r.worker && code(r.worker), (e.rescues ?? []).filter(x => x.range === r.index).map(x => el("div", { class: "warn" }, "after ", code(x.lostWorker ?? "(unknown)"), " was lost"))], r.startedAt && time(r.startedAt), took(r), state(r.outcome), r.counts && number(r.counts.processed), r.counts && number(r.counts.failed), r.error],
      course(ranges, contentWidth() - 44)));
}

// course draws the ranges of a run as they went over the workers: a line for each worker, from the left to the right.
function course(ranges, width) {
  const drawn = ranges.filter(r => r.startedAt && r.endedAt);
  if (drawn.length === 0) return null;
  const start = r => Date.parse(r.startedAt), end = r => Date.parse(r.endedAt);
  const from = Math.min(...drawn.map(start)), to = Math.max(...drawn.map(end), from + 1), x = at => (at - from) / (to - from) * width;
  const workers = [...new Set(drawn.map(r => r.worker))], line = 42;
  return el("figure", {}, svg("svg", { width, height: workers.length * line, viewBox: `0 0 ${width} ${workers.length * line}`, role: "group", "aria-label": "The ranges as they went over the workers" },
    workers.map((w, i) => svg("text", { x: 0, y: i * line + 15 }, `${w || "an unknown worker"}: ${plural(drawn.filter(r => r.worker === w).length, "range")}`)),
    drawn.map(r => {
      const says = `Range ${rangeNumber(r.index)} on ${r.worker}: ${r.outcome} in ${span(end(r) - start(r))}${r.counts ? `, ${counts(r.counts)}` : ""}`;
      return svg("rect", { class: `bar ${r.outcome}`, role: "img", "aria-label": says, x: x(start(r)), y: workers.indexOf(r.worker) * line + 20, width: Math.max(2, x(end(r)) - x(start(r)) - 1), height: 16 }, svg("title", {}, says));
    })), el("figcaption", {}, `From ${local(new Date(from))}, for ${span(to - from)}.`));
}

// --- Looking, again and again

const connection = document.getElementById("connection");
let looking = false, wanted = true; // wanted: the next look is at all
let lost = null, trouble = ""; // since when the API does not answer, and what is wrong
let refused = ""; // why the API does not show what the address names

// here says which view the address names.
function here() {
  const [path, query] = location.hash.slice(1).split("?");
  if (path === "/history") return { view: "history", title: "History", query: new URLSearchParams(query) };
  if (path.startsWith("/run/")) return { view: "run", title: "Run", id: decodeURIComponent(path.slice(5)) };
  return { view: "now", title: "Now" };
}

async function look(all = false) {
  wanted ||= all;
  if (looking || document.hidden) return;
  looking = true;
  const at = here(), hash = location.hash, everything = wanted || lost !== null;
  wanted = false;
  try {
    if (!seen.me || lost !== null) seen.me = await list("/whoami");
    if (at.view === "history") await lookAtHistory(at.query);
    else {
      await lookAtNow(everything);
      if (at.view === "run") await lookAtRun(at.id);
    }
    if (lost !== null) say(`The API answers again, after ${seconds(Date.now() - lost)}`);
    [lost, refused] = [null, ""];
  } catch (error) {
    if (error instanceof Refused) refused = error.message;
    else [lost, trouble] = [lost ?? Date.now(), error.message];
    wanted ||= everything;
  }
  looking = false;
  show();
  if (location.hash !== hash || wanted && lost === null && !refused) look();
}

function show() {
  const at = here();
  document.title = `${at.title} · codex-jobs`;
  update(connection, el("p", { id: "connection", role: "status" }, lost !== null && [trouble, ", since ", time(new Date(lost).toISOString()), ". What you see is from before."]));
  const link = { now: "#/", history: "#/history" }[at.view];
  for (const a of document.querySelectorAll("nav a")) a.ariaCurrent = link && a.getAttribute("href") === link ? "page" : null;
  if (!seen.me) return update(main, el("main", { id: "main", tabindex: -1 }, el("p", {}, refused || "Looking…")));
  update(document.getElementById("key"), el("p", { id: "key" }, [seen.me.key && `Key ${seen.me.key}${seen.me.write ? "" : ", which may only read"}`, `Times in ${Intl.DateTimeFormat().resolvedOptions().timeZone}`].filter(Boolean).join(" · ")));
  const fresh = at.view === "history" ? historyView(at.query) : at.view === "run" ? runView(at.id) : nowView();
  fill(fresh, { id: "main", tabindex: -1 }, []);
  update(main, fresh);
}

let before = here();
addEventListener("hashchange", () => {
  const at = here();
  if (at.view === "history" && before.view !== "history") past.stale = true;
  before = at;
  refused = "";
  show();
  look();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
document.getElementById("skip").onclick = event => { event.preventDefault(); main.focus(); };
document.addEventListener("visibilitychange", () => look());
addEventListener("resize", show); // charts are drawn as wide as the page is
setInterval(() => looking ? show() : look(), lookInterval);
look();
