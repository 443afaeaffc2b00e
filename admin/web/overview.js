// The cluster at a glance.
import { api, bytes, count, dialog, fill, h, mark, plural, rate, short, span, table, text, toast } from './lib.js';
import { plot } from './plot.js';

export function show(box, state) {
  const facts = h('dl', { class: 'facts' });
  const alarms = h('section', { class: 'alarms', 'aria-label': 'Alarms' });
  const nodes = h('section', {});
  const plots = {
    messages: plot('Messages a second', [{ name: 'received', class: 'a' }, { name: 'sent', class: 'b' }], rate),
    bytes: plot('Bytes a second', [{ name: 'received', class: 'a' }, { name: 'sent', class: 'b' }], bytes),
    clients: plot('Connected clients', [{ name: 'now', class: 'a' }], short),
    dropped: plot('Dropped a second', [{ name: 'now', class: 'c' }], rate),
  };
  fill(box, h('h1', { class: 'hidden' }, 'Overview'), alarms, facts,
    h('section', { class: 'plots', 'aria-label': 'Rates' }, Object.values(plots).map(p => p.element)), nodes);

  const draw = () => {
    const t = Date.now();
    const points = f => state.history.map(p => ({ t: p.t, v: f(p) }));
    plots.messages.draw(points(p => [p.in, p.out]), t);
    plots.bytes.draw(points(p => [p.bytesIn, p.bytesOut]), t);
    plots.clients.draw(points(p => [p.clients]), t);
    plots.dropped.draw(points(p => [p.dropped]), t);
  };
  let told = '';
  const update = o => {
    if (!o) o = state.overview;
    if (!o) return;
    box.classList.toggle('old', !state.live);
    showAlarms(alarms, o);
    showFacts(facts, o);
    // Rows are made anew only where who is there has changed, so that a button is not
    // pulled away from under a finger.
    const shape = o.nodes.map(n => n.node + n.role + n.up + n.draining + (n.draining && !n.clients) + n.ready + n.disk + n.version).join();
    if (shape !== told) {
      told = shape;
      fill(nodes, h('h2', {}, 'Nodes'), nodeTable(o, state));
    } else refresh(nodes, o);
    draw();
  };
  state.watchers.add(update);
  if (state.history.length < 5) load(state).then(draw, () => {});
  if (state.overview) update(state.overview);
  else fill(facts, h('div', {}, h('dt', {}, 'Cluster'), h('dd', {}, 'asking …')));
}

// load fetches what was before the page was there.
async function load(state) {
  const answer = await api('GET', 'history');
  const now = Date.now(), step = answer.step_ms, sums = new Map();
  for (const n of answer.nodes || []) {
    for (const s of n.samples || []) {
      const k = Math.round(s.age_ms / step);
      const p = sums.get(k) || { t: now - k * step, in: 0, out: 0, bytesIn: 0, bytesOut: 0, dropped: 0, clients: 0 };
      p.in += s.in * 1000 / step; p.out += s.out * 1000 / step;
      p.bytesIn += s.bytes_in * 1000 / step; p.bytesOut += s.bytes_out * 1000 / step;
      p.dropped += s.dropped * 1000 / step; p.clients += s.connected;
      sums.set(k, p);
    }
  }
  const first = state.history.length ? state.history[0].t : now;
  const old = [...sums.values()].filter(p => p.t < first).sort((a, b) => a.t - b.t);
  // The youngest bucket may lack a node.
  if (old.length > 1 && !state.history.length) old.pop();
  state.history = old.concat(state.history);
}

function showAlarms(e, o) {
  const key = o.alarms.map(a => a.level + a.text).join();
  if (e.dataset.key === key) return;
  e.dataset.key = key;
  if (!o.alarms.length) {
    fill(e, h('p', { class: 'calm' }, mark('ok', 'No alarms. '), h('span', {}, 'Every node answers, the log is replicated, and nothing is running out.')));
    return;
  }
  const words = { critical: 'Critical', warning: 'Warning', notice: 'Notice' };
  fill(e, h('h2', { class: 'hidden' }, 'Alarms'), h('ul', {}, o.alarms.map(a =>
    h('li', { class: a.level }, mark(a.level, words[a.level]), h('span', { class: 'words' }, a.text)))));
}

function showFacts(e, o) {
  const voters = o.nodes.filter(n => n.role === 'leader' || n.role === 'voter');
  const up = voters.filter(n => n.up).length;
  const electing = !o.leader && up > voters.length / 2;
  const lag = Math.max(0, ...o.nodes.filter(n => n.up).map(n => n.lag));
  const all = [
    ['Leader', o.leader || 'none known', 'term ' + count(o.term)],
    ['Quorum', o.quorum || electing ? `${up} of ${voters.length}` : 'lost', electing ? 'an election is under way' : o.quorum ? (up - (Math.floor(voters.length / 2) + 1) > 0
      ? plural(up - (Math.floor(voters.length / 2) + 1), 'voter may fail', 'voters may fail') : 'no voter may fail') : `${up} of ${voters.length} voters answer`],
    ['Clients', count(o.nodes.reduce((a, n) => a + (n.up ? n.clients : 0), 0)), plural(o.counts.sessions, 'session', 'sessions')],
    ['Subscriptions', count(o.counts.subscriptions), 'in the log'],
    ['Waiting', count(o.counts.stored_messages), bytes(o.counts.stored_bytes) + ' of messages'],
    ['Log', count(o.commit_index), lag ? plural(lag, 'entry', 'entries') + ' behind at most' : 'all nodes are level'],
  ];
  if (e.children.length !== all.length) {
    fill(e, all.map(([k]) => h('div', {}, h('dt', {}, k), h('dd', {}), h('dd', { class: 'more' }))));
  }
  all.forEach(([, v, more], i) => {
    const [, main, small] = e.children[i].children;
    text(main, v); text(small, more);
    e.children[i].classList.toggle('bad', i === 0 && !o.leader && !electing || i === 1 && !o.quorum && !electing);
    e.children[i].classList.toggle('late', electing && i < 2 || i === 1 && up <= Math.floor(voters.length / 2) + 1 || i === 5 && lag > 1000);
  });
}

function nodeState(n) {
  if (!n.up) return mark('critical', 'down');
  if (n.draining) return mark('notice', n.clients ? 'draining' : 'drained');
  if (n.disk && n.disk !== 'ok') return mark(n.disk === 'low' ? 'warning' : 'critical', 'disk ' + n.disk);
  if (!n.ready) return mark('warning', 'not ready');
  return mark('ok', 'ready');
}

// cells are what changes every second.
const cells = {
  clients: n => n.up ? count(n.clients) : '–',
  in: n => n.rates && n.up ? rate(n.rates.in) : '–',
  out: n => n.rates && n.up ? rate(n.rates.out) : '–',
  lag: n => n.up ? count(n.lag) : '–',
  lease: n => n.up && n.lease_ms >= 0 ? (n.lease_ms / 1000).toFixed(1) + ' s' : '–',
  uptime: n => n.up ? span(n.uptime_s) : '–',
};

const cell = (k, n) => h('span', { 'data-cell': k, 'data-node': n.node }, cells[k](n));

function refresh(e, o) {
  const by = Object.fromEntries(o.nodes.map(n => [n.node, n]));
  for (const s of e.querySelectorAll('[data-cell]')) text(s, cells[s.dataset.cell](by[s.dataset.node]));
}

function nodeTable(o, state) {
  const columns = [
    { name: 'Node', of: n => [h('span', { class: 'id' }, n.node), h('span', { class: 'under' }, n.address)] },
    { name: 'State', of: nodeState },
    { name: 'Role', of: n => n.role === 'leader' ? h('strong', {}, 'leader') : n.role },
    { name: 'Clients', num: true, of: n => cell('clients', n) },
    { name: 'Received/s', num: true, of: n => cell('in', n) },
    { name: 'Sent/s', num: true, of: n => cell('out', n) },
    { name: 'Lag', num: true, of: n => cell('lag', n) },
    { name: 'Lease', num: true, of: n => cell('lease', n) },
    { name: 'Up for', num: true, of: n => cell('uptime', n) },
    { name: 'Version', class: 'clip', of: n => h('span', { title: n.version }, n.version) },
  ];
  if (state.may('operator')) columns.push({ name: '', label: 'Drain', class: 'do', of: n => n.up && (n.draining
    ? h('button', { onclick: () => undrain(n.node) }, 'Serve again')
    : h('button', { onclick: () => drain(n.node) }, 'Drain…')) });
  return table('Nodes', columns, o.nodes, n => ({ 'data-node': n.node, class: n.up ? '' : 'off' }));
}

async function undrain(node) {
  try {
    await api('DELETE', `nodes/${encodeURIComponent(node)}/drain`);
    toast(`${node} serves again.`);
  } catch (e) { toast(e.message, true); }
}

// drain says what it will do before it does.
async function drain(node) {
  let plan;
  try { plan = await api('GET', `nodes/${encodeURIComponent(node)}/drain`); } catch (e) { toast(e.message, true); return; }
  const steps = [`${node} says that it is not ready, so that balancers send nobody new.`];
  if (plan.leads) steps.push('Another voter takes the lead.');
  const others = plan.others.map(o => `${o.node} (has ${count(o.clients)})`).join(' and ');
  steps.push(plan.clients
    ? `Its ${plural(plan.clients, 'client is', 'clients are')} sent away within ${plan.timeout_s} s` + (others ? `, and connect again to ${others}.` : '.')
    : 'It has no clients to send away.');
  steps.push('Sessions, queues and wills stay. It keeps its vote and its copy of the log, and takes no clients until it serves again.');
  const pace = h('input', { type: 'number', name: 'rate', min: 1, max: 10000, id: 'drain-rate', placeholder: 'as fast as they go' });
  const done = await dialog('Drain ' + node, [
    h('ol', { class: 'steps' }, steps.map(s => h('li', {}, s))),
    plan.warnings.map(w => h('p', { class: 'warn' }, mark('warning', w))),
    h('label', { for: 'drain-rate' }, 'Clients a second'), pace,
  ], { label: 'Drain ' + node, danger: plan.warnings.length > 0, run: v => api('PUT', `nodes/${encodeURIComponent(node)}/drain`, { rate: Number(v.get('rate')) || 0 }) });
  if (done) toast(`${node} drains.`);
}
