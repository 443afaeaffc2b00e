// The tree of topics: what is published where, and what is retained.
import { api, bytes, day, decode, dialog, empty, failed, fill, h, payload, query, rate, text, toast } from './lib.js';

export function show(box, state, parameters) {
  const tree = h('div', { class: 'tree', role: 'group', 'aria-label': 'Topics' });
  const side = h('aside', { class: 'topic', 'aria-label': 'The topic that is chosen', 'aria-live': 'polite' });
  const measured = h('span', { class: 'total' });
  const go = h('input', { type: 'search', placeholder: 'Go to a topic  ( / )', 'aria-label': 'Go to a topic', class: 'mono', spellcheck: 'false', autocomplete: 'off' });
  go.addEventListener('keydown', e => { if (e.key === 'Enter' && go.value) reach(go.value); });
  fill(box, h('h1', {}, 'Topics'),
    h('p', { class: 'hint' }, 'Rates are of what clients publish, counted while this page is open. A level counts all that is below it.'),
    h('div', { class: 'tools' }, go, measured,
      state.may('operator') && h('button', { onclick: () => publish(state, '') }, 'Publish…')),
    h('div', { class: 'split' }, tree, side));
  const root = levelBox();
  const open = new Map([['', root]]); // what is shown, by how its topics begin
  fill(tree, root.box);
  let selected = parameters.get('topic'), ended = false, timer;

  const pick = topic => {
    selected = topic;
    history.replaceState(null, '', '#/topics' + query({ topic }));
    for (const b of tree.querySelectorAll('.level')) b.classList.toggle('on', b.dataset.topic === topic);
    showTopic(side, topic, state, () => pick(topic));
  };
  // Rows stay what they are, and only what changed in them is changed: there may be
  // thousands, every three seconds.
  const draw = under => {
    const l = open.get(under);
    if (!l) return;
    if (l.error) { l.only(failed(l.error, refresh)); return; }
    if (!l.items.length) {
      l.only(under === '' ? empty('No topic yet', 'Nothing is retained, and nobody has published since this page was opened.') : empty('Nothing below now'));
      return;
    }
    const most = Math.max(1e-9, ...l.items.map(t => t.rate));
    l.items.sort((a, b) => natural.compare(a.level, b.level));
    const gone = new Set(l.rows.keys());
    let before = l.list.firstChild;
    for (const t of l.items) {
      gone.delete(t.topic);
      let r = l.rows.get(t.topic);
      if (!r || r.below !== t.below) {
        if (r) { if (before === r.element) before = before.nextSibling; r.element.remove(); }
        r = rowOf(t, pick, toggle);
        l.rows.set(t.topic, r);
        const sub = open.get(t.topic + '/');
        if (sub) r.unfold(sub.box);
        r.line.classList.toggle('on', t.topic === selected);
      }
      if (r.element === before) before = before.nextSibling; else l.list.insertBefore(r.element, before);
      r.show(t, most);
    }
    for (const topic of gone) { l.rows.get(topic).element.remove(); l.rows.delete(topic); }
    l.rest.hidden = !l.more;
    l.only(l.list, l.rest);
  };
  const fetchLevel = async under => {
    const l = open.get(under);
    try {
      const got = await api('GET', 'topics' + query({ under, limit: 200 }));
      Object.assign(l, got, { error: null });
      if (under === '') measured.textContent = got.measured_ms < 2000 ? 'Counting has begun' : got.uncounted_rate ? `${rate(got.uncounted_rate)}/s of more topics than are counted` : '';
    } catch (error) { l.error = error; }
    if (!ended && open.get(under) === l) draw(under);
  };
  const refresh = async () => {
    clearTimeout(timer);
    await Promise.all([...open.keys()].map(fetchLevel));
    if (ended) return;
    timer = setTimeout(() => document.hidden ? (timer = setTimeout(refresh, 2000)) : refresh(), root.measured_ms < 3000 ? 1000 : 3000);
  };
  const row = key => { // of the topic that is opened by key
    for (const l of open.values()) { const r = l.rows.get(key.slice(0, -1)); if (r) return r; }
    return null;
  };
  const unfold = async key => {
    open.set(key, levelBox());
    const r = row(key);
    if (r) r.unfold(open.get(key).box);
    await fetchLevel(key);
  };
  // reach opens the way to a topic, and chooses it.
  const reach = async topic => {
    if (!root.items.length) await fetchLevel('');
    for (let i = topic.indexOf('/'); i >= 0; i = topic.indexOf('/', i + 1)) {
      const key = topic.slice(0, i + 1);
      if (!open.has(key)) await unfold(key);
    }
    pick(topic);
  };
  const toggle = key => {
    if (!open.has(key)) { unfold(key); return; }
    for (const k of [...open.keys()]) if (k.startsWith(key)) open.delete(k);
    const r = row(key);
    if (r) r.fold();
  };
  refresh();
  if (selected) reach(selected); else fill(side, empty('Choose a topic', 'Its retained message is shown here.'));
  return () => { ended = true; clearTimeout(timer); };
}

// levelBox is where a level of the tree is shown.
function levelBox() {
  const l = { box: h('div'), list: h('ul'), rest: h('p', { class: 'none more', hidden: true }, 'and more: the first 200 are shown; go to another by its name'), rows: new Map(), items: [], error: null };
  l.only = (...parts) => { if (l.box.firstChild !== parts[0] || l.box.childNodes.length !== parts.length) fill(l.box, parts); };
  l.only(h('p', { class: 'wait' }, 'Counting …'));
  return l;
}

// rowOf is the line of a topic, with what is below it where that is open.
function rowOf(t, pick, toggle) {
  const value = h('span', { class: 'value' }), strip = h('svg:rect', { width: 0, height: 6 });
  const messages = h('span', { class: 'num' }), size = h('span', { class: 'num small' });
  const fold = t.below
    ? h('button', { class: 'fold', 'data-key': 'f' + t.topic, 'aria-expanded': 'false', 'aria-label': 'Open ' + t.topic, onclick: () => toggle(t.topic + '/') }, '▸')
    : h('span', { class: 'fold', 'aria-hidden': 'true' }, '·');
  const line = h('div', { class: 'level', 'data-topic': t.topic }, fold,
    h('button', { class: 'name', 'data-key': 'n' + t.topic, onclick: () => pick(t.topic) }, t.level || h('span', { class: 'none' }, '(empty)')),
    value, h('span', { class: 'bar', 'aria-hidden': 'true' }, h('svg:svg', { viewBox: '0 0 100 6', preserveAspectRatio: 'none' }, strip)), messages, size);
  const element = h('li', {}, line);
  let below = null, shown, width;
  const folded = open => {
    fold.textContent = open ? '▾' : '▸';
    fold.setAttribute('aria-expanded', String(open));
    fold.setAttribute('aria-label', (open ? 'Close ' : 'Open ') + t.topic);
  };
  return {
    element, line, below: t.below,
    show(now, most) {
      const key = now.retained ? now.payload || '' : null;
      if (key !== shown) {
        shown = key;
        const p = key === null ? null : payload(decode(key));
        text(value, p ? (p.hex ? 'hex ' : '') + p.text.slice(0, 60) : '');
      }
      const w = Math.round(now.rate / most * 100);
      if (w !== width) { width = w; strip.setAttribute('width', w); }
      text(messages, now.rate ? rate(now.rate) + '/s' : '–');
      text(size, now.byte_rate ? bytes(now.byte_rate) + '/s' : '');
    },
    unfold(box) { this.fold(); below = h('div', { class: 'below' }, box); element.append(below); folded(true); },
    fold() { if (below) below.remove(); below = null; if (t.below) folded(false); },
  };
}

// natural puts 9 before 10.
const natural = new Intl.Collator('en', { numeric: true });

async function showTopic(side, topic, state, again) {
  const actions = h('div', { class: 'buttons' },
    h('a', { class: 'button', href: '#/tail' + query({ filter: topic }) }, 'Tail it'),
    h('a', { class: 'button', href: '#/tail' + query({ filter: topic + '/#' }) }, 'Tail all below'),
    state.may('operator') && h('button', { onclick: () => publish(state, topic, again) }, 'Publish…'));
  const head = [h('h2', { class: 'id' }, topic || '(empty)')];
  let m;
  try { m = await api('GET', 'retained/' + encodeURIComponent(topic)); } catch (e) {
    fill(side, head, e.status === 404 ? empty('No retained message', 'Subscribers to this topic get the next message that is published.') : failed(e), actions);
    return;
  }
  const raw = decode(m.payload), p = payload(raw);
  fill(side, head, h('h3', {}, 'Retained message'), h('pre', { tabindex: '0', 'aria-label': 'Payload' }, pretty(p)),
    h('dl', { class: 'pairs' }, [
      ['Size', bytes(raw.length) + (p.hex ? ', shown in hex' : '')], ['QoS', m.qos], ['Published', day(m.at)],
      ['By', m.publisher || 'an operator'], m.expires && ['Expires', day(m.expires)],
    ].filter(Boolean).map(([k, v]) => [h('dt', {}, k), h('dd', {}, v)])),
    actions, state.may('operator') && h('div', { class: 'buttons' }, h('button', { class: 'danger', onclick: () => clear(topic, again) }, 'Clear…')));
}

// pretty lays JSON out.
function pretty(p) {
  if (!p.hex && /^\s*[[{]/.test(p.text)) {
    try { return JSON.stringify(JSON.parse(p.text), null, 2); } catch { /* it only looks so */ }
  }
  return p.text.slice(0, 20000);
}

async function clear(topic, again) {
  const done = await dialog('Clear ' + topic, [h('p', {}, 'The retained message of this topic is removed on every node. Those who are subscribed get an empty message.')],
    { label: 'Clear', danger: true, run: () => api('DELETE', 'retained/' + encodeURIComponent(topic)) });
  if (done) { toast(`${topic} retains nothing any more.`); again(); }
}

async function publish(state, topic, again) {
  const done = await dialog('Publish a message', [
    h('label', { for: 'pub-topic' }, 'Topic'), h('input', { id: 'pub-topic', name: 'topic', required: true, value: topic, class: 'mono', spellcheck: 'false' }),
    h('label', { for: 'pub-text' }, 'Payload, as text'), h('textarea', { id: 'pub-text', name: 'text', rows: 5, class: 'mono', spellcheck: 'false' }),
    h('div', { class: 'row' },
      h('label', {}, 'QoS ', h('select', { name: 'qos' }, [0, 1, 2].map(q => h('option', { value: q, selected: q === 1 }, q)))),
      h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'retain' }), 'retain it')),
  ], {
    label: 'Publish', run: v => api('POST', 'publish', { topic: v.get('topic'), text: v.get('text'), qos: Number(v.get('qos')), retain: v.get('retain') === 'on' }),
  });
  if (done) { toast('The cluster has the message.'); if (again) again(); }
}
