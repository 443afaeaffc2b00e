// What the log keeps for clients, connected or not.
import { api, count, day, dialog, fill, h, mark, since, span, table, toast, version, empty, failed } from './lib.js';
import { list } from './list.js';

const waiting = s => s.waiting >= 10000 ? '10,000+' : count(s.waiting);
const never = 4294967295;
const life = s => s.expiry_s === 0 ? 'no' : s.expiry_s === never ? 'for ever' : span(s.expiry_s);

export function show(box, state, parameters) {
  const lists = h('div', { class: 'lists' });
  fill(box, h('h1', {}, 'Sessions'), lists);
  const columns = [
    { name: 'Client', of: s => h('button', { class: 'link id', 'data-key': 'c' + s.client, onclick: () => detail(s.client, state, () => found.reload()) }, s.client) },
    { name: 'User', class: 'clip', of: s => s.user || h('span', { class: 'none' }, 'anonymous') },
    { name: 'State', of: s => s.state === 'connected' ? mark('ok', 'on ' + s.node) : mark('off', 'away') },
    { name: 'Since', num: true, of: s => h('span', { title: s.since }, since(s.since)) },
    { name: 'Subs', num: true, of: s => count(s.subscriptions) },
    { name: 'Waiting', num: true, of: s => waiting(s) },
    { name: 'Persistent', num: true, of: life },
    { name: 'Ends', num: true, class: 'date', of: s => s.ends ? day(s.ends) : s.state === 'away' ? 'never' : '–' },
    { name: 'MQTT', num: true, of: s => version(s.protocol) },
  ];
  if (state.may('operator')) columns.push({ name: '', label: 'End', class: 'do', of: s => h('button', { 'data-key': 'e' + s.client, 'aria-label': 'End the session of ' + s.client, onclick: () => end(s.client, () => found.reload()) }, 'End…') });
  const found = list(lists, 'sessions', {
    one: 'session', many: 'sessions', columns, hint: 'Search client or user  ( / )',
    filters: [{ name: 'state', label: 'State', options: () => [['', 'All'], ['connected', 'Connected'], ['away', 'Away']] }],
    none: ['There is no session', 'A client that connects gets one; one that is persistent stays when its client goes.'],
  }, parameters, 10000);
  return found.end;
}

export async function end(client, done) {
  const answer = await dialog('End the session of ' + client, [
    h('p', {}, 'Its subscriptions and all messages that wait for it are lost, and its connection is closed. This cannot be taken back.'),
  ], { label: 'End the session', danger: true, run: () => api('DELETE', 'sessions/' + encodeURIComponent(client)) });
  if (!answer) return;
  toast(`The session of ${client} has ended.`);
  done();
}

// detail shows one session.
export async function detail(client, state, done) {
  let s, error;
  try { s = await api('GET', 'sessions/' + encodeURIComponent(client)); } catch (e) { error = e; }
  const content = error ? failed(error) : [
    h('dl', { class: 'pairs' }, [
      ['User', s.user || 'anonymous'], ['State', s.state === 'connected' ? 'connected to ' + s.node + ' since ' + day(s.since) : 'away since ' + day(s.since)],
      ['Address', s.address || '–'], ['Protocol', 'MQTT ' + version(s.protocol)],
      ['Persistent', life(s)], ['Waiting', waiting(s) + (s.waiting === 1 ? ' message' : ' messages')], ['Will', s.will_topic || 'none'],
    ].map(([k, v]) => [h('dt', {}, k), h('dd', {}, v)])),
    h('h3', {}, 'Subscriptions in the log'),
    s.subscription_list && s.subscription_list.length ? table('Subscriptions', [
      { name: 'Filter', class: 'mono', of: x => x.filter },
      { name: 'QoS', num: true, of: x => x.qos },
      { name: 'Options', of: x => [x.no_local && 'no local', x.retain_as_published && 'retain as published'].filter(Boolean).join(', ') || '–' },
    ], s.subscription_list) : empty('None', 'Subscriptions of a clean session are its node’s own, and not in the log.'),
  ];
  await dialog(client, content, { cancel: 'Close', wide: true });
}
