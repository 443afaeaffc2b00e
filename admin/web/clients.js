// Who is connected, on all nodes, and who comes and goes.
import { api, bytes, clock, count, dialog, fill, h, mark, since, span, stream, toast, version } from './lib.js';
import { list } from './list.js';
import { detail } from './sessions.js';
import { ban } from './bans.js';

export function show(box, state, parameters) {
  const lists = h('div', { class: 'lists' });
  const events = h('ol', { class: 'events', 'aria-label': 'Who comes and goes' }, h('li', { class: 'wait' }, 'Nobody has come or gone since this page was opened.'));
  fill(box, h('h1', {}, 'Clients'), h('div', { class: 'split' }, lists,
    h('aside', { 'aria-label': 'Coming and going' }, h('h2', {}, 'Coming and going'), events)));
  const columns = [
    { name: 'Client', of: c => h('button', { class: 'link id', 'data-key': 'c' + c.client, onclick: () => detail(c.client, state, () => found.reload()) }, c.client) },
    { name: 'User', class: 'clip', of: c => c.user || h('span', { class: 'none' }, 'anonymous') },
    { name: 'Node', of: c => c.node },
    { name: 'Address', class: 'mono', of: c => c.address },
    { name: 'MQTT', num: true, of: c => version(c.protocol) },
    { name: 'Connected', num: true, of: c => h('span', { title: c.since }, since(c.since)) },
    { name: 'Subs', num: true, of: c => count(c.subscriptions) },
    { name: 'In flight', num: true, of: c => c.known ? count(c.in_flight) : '–' },
    { name: 'Queued', num: true, of: c => queued(c) },
    { name: 'Silent', num: true, of: c => c.known ? quiet(c) : '–' },
  ];
  if (state.may('operator')) {
    columns.push({ name: '', label: 'Actions', class: 'do', of: c => [
      h('button', { 'data-key': 'd' + c.client, 'aria-label': 'Disconnect ' + c.client, onclick: () => disconnect(c.client, () => found.reload()) }, 'Disconnect'),
      state.may('admin') && h('button', { 'data-key': 'b' + c.client, 'aria-label': 'Ban ' + c.client, onclick: () => ban({ kind: 'client', value: c.client }, () => found.reload()) }, 'Ban…')] });
  }
  const nodes = () => [['', 'All nodes'], ...((state.overview && state.overview.nodes) || []).map(n => [n.node, n.node])];
  const found = list(lists, 'clients', {
    one: 'client', many: 'clients', columns, hint: 'Search client, user or address  ( / )',
    filters: [{ name: 'node', label: 'Node', options: nodes }],
    none: ['No client is connected', 'Clients appear here as soon as they connect to any node.'],
    row: c => ({ class: c.behind ? 'slow' : '' }),
  }, parameters, 5000);
  const end = stream('watch/clients', { client: e => event(events, e) });
  return () => { found.end(); end(); };
}

const kept = 200;

function event(box, e) {
  const wait = box.querySelector('.wait');
  if (wait) wait.remove();
  const on = e.kind === 'connected';
  box.prepend(h('li', {},
    h('time', { datetime: e.at }, clock(e.at)),
    e.kind === 'missed' ? h('span', { class: 'none' }, 'some were not told: they came too fast')
      : [mark(on ? 'in' : 'out', h('span', { class: 'hidden' }, on ? 'connected: ' : 'gone: ')), h('span', { class: 'id' }, e.client), h('span', { class: 'under' }, e.node + (e.reason ? ', ' + e.reason : ''))]));
  while (box.children.length > kept) box.lastChild.remove();
}

function queued(c) {
  if (!c.known) return '–';
  const n = count(c.queued) + (c.behind ? '+' : '');
  return c.queued || c.behind ? h('span', { title: bytes(c.queued_bytes) + ' in memory' + (c.behind ? ', and more in the log' : '') }, n) : n;
}

// quiet stands out when the keep alive has nearly run out.
function quiet(c) {
  const s = c.quiet_ms / 1000;
  return h('span', { class: c.keep_alive_s && s > c.keep_alive_s * 1.2 ? 'late' : '', title: c.keep_alive_s ? 'keep alive ' + c.keep_alive_s + ' s' : 'no keep alive' }, s < 1 ? 'now' : span(s));
}

async function disconnect(client, done) {
  const answer = await dialog('Disconnect ' + client, [
    h('p', {}, 'Its connection is closed and its will is published. Its session stays, and it may connect again at once.'),
    h('p', { class: 'hint' }, 'To keep it out, ban it instead, or disable its user under Access.'),
  ], { label: 'Disconnect', danger: true, run: () => api('DELETE', 'clients/' + encodeURIComponent(client)) });
  if (!answer) return;
  toast(answer.node ? `${client} was disconnected from ${answer.node}.` : `${client} was not connected any more.`);
  done();
}

