// What every page uses: elements, the API, streams, numbers for people.

// h makes an element. Text is only ever set as text: names come from clients.
export function h(tag, attributes, ...children) {
  const svg = tag.startsWith('svg:');
  const e = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag.slice(4)) : document.createElement(tag);
  for (const [k, v] of Object.entries(attributes || {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
    else if (k === 'value' && !svg) e.value = v;
    else e.setAttribute(k, v === true ? '' : v);
  }
  put(e, ...children);
  return e;
}

function put(e, ...children) {
  for (const c of children.flat(Infinity)) {
    if (c === undefined || c === null || c === false) continue;
    e.append(c instanceof Node ? c : String(c));
  }
}

// fill replaces what is in an element.
export function fill(e, ...children) {
  e.replaceChildren();
  put(e, ...children);
  return e;
}

// text sets the text of an element where it differs, so that what did not change is
// not read out again.
export function text(e, value) {
  if (e.textContent !== value) e.textContent = value;
}

// Problem is an error of the API.
export class Problem extends Error {
  constructor(body, status) {
    super((body && body.detail) || 'The node answered ' + status + '.');
    this.kind = body && body.kind;
    this.status = status;
  }
}

const gone = new Set();

// onLoggedOut is called when the session has ended.
export function onLoggedOut(f) { gone.add(f); }

export function loggedOut() { for (const f of gone) f(); }

// api makes a request and returns what it answers.
export async function api(method, path, body, signal) {
  let response;
  try {
    response = await fetch('/v1/' + path, {
      method, signal, credentials: 'same-origin', cache: 'no-store',
      headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new Problem({ detail: 'The node does not answer: see whether it runs, or use another one.', kind: 'unreachable' }, 0);
  }
  if (response.status === 204) return null;
  let answer = null;
  try { answer = await response.json(); } catch { /* told by the status */ }
  if (!response.ok) {
    if (response.status === 401 && path !== 'session') loggedOut();
    throw new Problem(answer, response.status);
  }
  return answer;
}

// query makes the part of an address behind the question mark.
export function query(values) {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(values)) if (v !== '' && v !== undefined && v !== null) q.set(k, v);
  const s = q.toString();
  return s ? '?' + s : '';
}

// stream follows server-sent events; handlers are by event. It connects again by
// itself, and tells state whether it has a connection. It returns what ends it.
export function stream(path, handlers, state) {
  let source, timer, ended = false, wait = 500;
  const open = () => {
    source = new EventSource('/v1/' + path);
    source.onopen = () => { wait = 500; if (state) state(true); };
    source.onerror = () => {
      source.close();
      if (ended) return;
      if (state) state(false);
      timer = setTimeout(check, wait);
      wait = Math.min(wait * 2, 5000);
    };
    for (const [name, f] of Object.entries(handlers)) source.addEventListener(name, e => f(JSON.parse(e.data)));
    source.addEventListener('problem', e => {
      const p = JSON.parse(e.data);
      if (p.kind === 'unauthenticated') loggedOut();
    });
  };
  // An EventSource does not tell why it failed.
  const check = async () => {
    try { await api('GET', 'session'); } catch (e) {
      if (e.status === 401) { ended = true; loggedOut(); return; }
    }
    if (!ended) open();
  };
  open();
  return () => { ended = true; clearTimeout(timer); source.close(); };
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

// count is a number of things.
export const count = n => whole.format(n);

// plural is a number with its noun.
export const plural = (n, one, many) => count(n) + ' ' + (n === 1 ? one : many);

// rate is a number of things a second.
export function rate(n) {
  if (n === 0) return '0';
  if (n < 10) return tenth.format(n);
  return n < 100000 ? whole.format(n) : short(n);
}

// short is a number with three digits and a letter.
export function short(n) {
  for (const [size, letter] of [[1e9, 'G'], [1e6, 'M'], [1e4, 'k']]) {
    if (n >= size) return tenth.format(n / (letter === 'k' ? 1e3 : size)) + letter;
  }
  return n < 10 && n !== Math.round(n) ? tenth.format(n) : whole.format(n);
}

// bytes is a number of bytes.
export function bytes(n) {
  for (const [size, unit] of [[2 ** 40, 'TiB'], [2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']]) {
    if (n >= size) return tenth.format(n / size) + ' ' + unit;
  }
  return whole.format(n) + ' B';
}

// span is a number of seconds for people, coarse.
export function span(s) {
  s = Math.max(0, Math.round(s));
  if (s < 60) return s + ' s';
  if (s < 3600) return Math.floor(s / 60) + ' min';
  if (s < 86400) return Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min';
  return Math.floor(s / 86400) + ' d ' + Math.floor(s % 86400 / 3600) + ' h';
}

// since is how long ago a time was.
export const since = at => span((Date.now() - new Date(at)) / 1000);

// clock is the time of the day, exact.
export function clock(at, fine) {
  const d = new Date(at);
  const p = (n, w = 2) => String(n).padStart(w, '0');
  return p(d.getHours()) + ':' + p(d.getMinutes()) + ':' + p(d.getSeconds()) + (fine ? '.' + p(d.getMilliseconds(), 3) : '');
}

// day is a date with its time.
export function day(at) {
  const d = new Date(at);
  const p = n => String(n).padStart(2, '0');
  return d.getFullYear() + '-' + p(d.getMonth() + 1) + '-' + p(d.getDate()) + ' ' + p(d.getHours()) + ':' + p(d.getMinutes());
}

// version names a protocol level.
export const version = p => ({ 3: '3.1', 4: '3.1.1', 5: '5' })[p] || (p ? String(p) : '');

// decode takes base64 apart.
export function decode(base64) {
  if (!base64) return new Uint8Array();
  return Uint8Array.from(atob(base64), c => c.charCodeAt(0));
}

// payload shows bytes as text where they are text, else in hex.
export function payload(raw) {
  try {
    const s = new TextDecoder('utf-8', { fatal: true }).decode(raw);
    // eslint-disable-next-line no-control-regex
    if (!/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/.test(s)) return { text: s, hex: false };
  } catch { /* it is not UTF-8 */ }
  return { text: Array.from(raw, b => b.toString(16).padStart(2, '0')).join(' '), hex: true };
}

// toast says what became of an action.
export function toast(message, bad) {
  const t = h('div', { class: 'toast' + (bad ? ' bad' : '') }, h('span', {}, message),
    h('button', { class: 'plain', 'aria-label': 'Dismiss', onclick: () => t.remove() }, '×'));
  document.getElementById('toasts').append(t);
  setTimeout(() => t.remove(), bad ? 15000 : 5000);
}

// told says which nodes lag behind a change, and returns the change.
export function told(c) {
  if (c.not_applied && c.not_applied.length) toast(`Not applied yet on ${c.not_applied.join(', ')}: each will, before it serves on.`, true);
  return c;
}

// dialog shows a form and returns its values when it is sent, or null.
export function dialog(title, content, actions) {
  return new Promise(resolve => {
    let answer = null;
    const fail = h('p', { class: 'fail', role: 'alert', hidden: true });
    const form = h('form', { method: 'dialog' }, h('h2', { id: 'dialog-title' }, title), content, fail,
      h('div', { class: 'buttons' },
        h('button', { type: 'button', onclick: () => d.close() }, actions.cancel || 'Cancel'),
        actions.label && h('button', { type: 'submit', class: actions.danger ? 'danger' : 'primary' }, actions.label)));
    const d = h('dialog', { 'aria-labelledby': 'dialog-title', class: actions.wide ? 'wide' : '' }, form);
    form.addEventListener('submit', async e => {
      e.preventDefault();
      const button = form.querySelector('button[type=submit]');
      button.disabled = true;
      fail.hidden = true;
      try {
        answer = await actions.run(new FormData(form)) ?? true;
        d.close();
      } catch (error) {
        fail.hidden = false;
        fail.textContent = error.message;
      } finally { button.disabled = false; }
    });
    d.addEventListener('close', () => { d.remove(); resolve(answer); });
    document.body.append(d);
    d.showModal();
  });
}

// debounce calls f when nothing has called for it for a while.
export function debounce(f, ms) {
  let timer;
  return (...a) => { clearTimeout(timer); timer = setTimeout(() => f(...a), ms); };
}

// mark is a state with a shape of its own, so that colour is not all that tells it.
export function mark(level, words) {
  return h('span', { class: 'mark ' + level }, h('span', { class: 'shape', 'aria-hidden': 'true' }), words);
}

// empty says that there is nothing, and why.
export const empty = (title, words) => h('div', { class: 'empty' }, h('p', { class: 'what' }, title), words && h('p', {}, words));

// failed says what went wrong with a page.
export const failed = (error, again) => h('div', { class: 'empty bad', role: 'alert' }, h('p', { class: 'what' }, 'This cannot be shown now'),
  h('p', {}, error.message), again && h('p', {}, h('button', { onclick: again }, 'Try again')));

const classes = c => [c.num && 'num', c.class].filter(Boolean).join(' ') || null;

// table makes a table whose rows are made by columns: {name, of, num, wide}.
export function table(label, columns, rows, row) {
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': label }, h('table', {},
    h('caption', { class: 'hidden' }, label),
    h('thead', {}, h('tr', {}, columns.map(c => h('th', { scope: 'col', class: classes(c) }, c.name || h('span', { class: 'hidden' }, c.label || 'Actions'))))),
    h('tbody', {}, rows.map(r => h('tr', row ? row(r) : {}, columns.map((c, i) => h(i === 0 ? 'th' : 'td', {
      scope: i === 0 ? 'row' : null, class: classes(c), 'data-label': c.name || null,
    }, c.of(r))))))));
}
