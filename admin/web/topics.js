// The tree of topics: what is published where, and what is retained.
import { api, bytes, day, decode, dialog, empty, failed, fill, h, payload, query, rate, toast } from './lib.js';

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
  const open = new Map([['', null]]);
  let selected = parameters.get('topic'), ended = false, timer;

  const pick = topic => {
    selected = topic;
    history.replaceState(null, '', '#/topics' + query({ topic }));
    for (const b of tree.querySelectorAll('.level')) b.classList.toggle('on', b.dataset.topic === topic);
    showTopic(side, topic, state, () => pick(topic));
  };
  // paint draws one level and what is open below it.
  const paint = (under, depth) => {
    const l = open.get(under);
    if (!l) return h('p', { class: 'wait' }, 'Counting …');
    if (l.error) return failed(l.error, refresh);
    if (!l.items.length) {
      return under === '' ? empty('No topic yet', 'Nothing is retained, and nobody has published since this page was opened.') : empty('Nothing below now');
    }
    const most = Math.max(1e-9, ...l.items.map(t => t.rate));
    l.items.sort((a, b) => natural.compare(a.level, b.level));
    return h('ul', {}, l.items.map(t => {
      const key = t.topic + '/', is = open.has(key);
      const p = t.retained && payload(decode(t.payload));
      return h('li', {},
        h('div', { class: 'level' + (t.topic === selected ? ' on' : ''), 'data-topic': t.topic },
          t.below ? h('button', { class: 'fold', 'data-key': 'f' + t.topic, 'aria-expanded': String(is), 'aria-label': (is ? 'Close ' : 'Open ') + t.topic, onclick: () => toggle(key) }, is ? '▾' : '▸')
            : h('span', { class: 'fold', 'aria-hidden': 'true' }, '·'),
          h('button', { class: 'name', 'data-key': 'n' + t.topic, onclick: () => pick(t.topic) }, t.level || h('span', { class: 'none' }, '(empty)')),
          h('span', { class: 'value' }, p ? (p.hex ? 'hex ' : '') + p.text.slice(0, 60) : ''),
          h('span', { class: 'bar', 'aria-hidden': 'true' }, bar(t.rate / most)),
          h('span', { class: 'num' }, t.rate ? rate(t.rate) + '/s' : '–'),
          h('span', { class: 'num small' }, t.byte_rate ? bytes(t.byte_rate) + '/s' : '')),
        is && h('div', { class: 'below' }, paint(key, depth + 1)));
    }), l.more && h('li', { class: 'none more' }, 'and more: the first 200 are shown; go to another by its name'));
  };
  const draw = () => {
    const focused = tree.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    fill(tree, paint('', 0));
    if (focused) { const e = [...tree.querySelectorAll('[data-key]')].find(e => e.dataset.key === focused); if (e) e.focus(); }
  };
  const fetchLevel = async under => {
    try {
      const l = await api('GET', 'topics' + query({ under, limit: 200 }));
      if (open.has(under)) open.set(under, l);
      if (under === '') measured.textContent = l.measured_ms < 2000 ? 'Counting has begun' : l.uncounted_rate ? `${rate(l.uncounted_rate)}/s of more topics than are counted` : '';
    } catch (error) { if (open.has(under)) open.set(under, { error }); }
  };
  const refresh = async () => {
    clearTimeout(timer);
    await Promise.all([...open.keys()].map(fetchLevel));
    if (ended) return;
    draw();
    timer = setTimeout(() => document.hidden ? (timer = setTimeout(refresh, 2000)) : refresh(), open.get('').measured_ms < 3000 ? 1000 : 3000);
  };
  // reach opens the way to a topic, and chooses it.
  const reach = async topic => {
    for (let i = topic.indexOf('/'); i >= 0; i = topic.indexOf('/', i + 1)) {
      const key = topic.slice(0, i + 1);
      if (!open.has(key)) { open.set(key, null); await fetchLevel(key); }
    }
    pick(topic);
    draw();
  };
  const toggle = async key => {
    if (open.has(key)) { for (const k of [...open.keys()]) if (k.startsWith(key)) open.delete(k); draw(); return; }
    open.set(key, null);
    draw();
    await fetchLevel(key);
    draw();
  };
  draw();
  refresh();
  if (selected) reach(selected); else fill(side, empty('Choose a topic', 'Its retained message is shown here.'));
  return () => { ended = true; clearTimeout(timer); };
}

// natural puts 9 before 10.
const natural = new Intl.Collator('en', { numeric: true });

const bar = part => h('svg:svg', { viewBox: '0 0 100 6', preserveAspectRatio: 'none' }, h('svg:rect', { width: Math.max(0, part * 100), height: 6 }));

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
