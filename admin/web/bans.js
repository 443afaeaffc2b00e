// Who is kept out of the whole cluster, and until when.
import { api, day, dialog, fill, h, mark, span, toast, told } from './lib.js';
import { list } from './list.js';

const kinds = { address: 'address or network', client: 'client id', user: 'user' };

export function show(box, state, parameters) {
  const lists = h('div', { class: 'lists' });
  fill(box, h('h1', {}, 'Bans'),
    h('p', { class: 'hint' }, 'Nodes ban by themselves who fails to log in, or comes and goes, too often; the limits say how often that is.'), lists);
  const admin = state.may('admin');
  const found = list(lists, 'bans', {
    one: 'ban', many: 'bans', hint: 'Search whom or why  ( / )',
    actions: admin && h('button', { onclick: () => ban({ kind: 'address', value: '' }, () => found.reload()) }, 'Ban…'),
    columns: [
      { name: 'Banned', class: 'mono', of: b => b.value },
      { name: 'As', of: b => kinds[b.kind] || b.kind },
      { name: 'By', of: b => b.automatic ? mark('warning', 'a node') : mark('ok', 'an operator') },
      { name: 'Why', of: b => b.reason || h('span', { class: 'none' }, 'not said') },
      { name: 'Since', num: true, class: 'date', of: b => day(b.since) },
      { name: 'Ends', num: true, class: 'date', of: b => b.expires_at ? h('span', { title: day(b.expires_at) }, 'in ' + span((new Date(b.expires_at) - Date.now()) / 1000)) : 'never' },
      { name: '', label: 'Lift', class: 'do', of: b => admin && h('button', { 'data-key': 'l' + b.kind + b.value, 'aria-label': 'Lift the ban of ' + b.value, onclick: () => lift(b, () => found.reload()) }, 'Lift…') },
    ],
    none: ['Nobody is banned', 'A ban closes connections at once, and lets nobody in that it names.'],
  }, parameters, 10000);
  return found.end;
}

const path = b => 'bans/' + encodeURIComponent(b.kind) + '/' + encodeURIComponent(b.value);

// ban asks whom to ban, for how long and why, beginning with b.
export async function ban(b, done) {
  const made = await dialog('Ban', [
    h('p', {}, 'Connections are closed at once, on every node. Sessions stay as they are.'),
    h('label', { for: 'ban-kind' }, 'Whom'), h('select', { id: 'ban-kind', name: 'kind' }, Object.entries(kinds).map(([k, name]) => h('option', { value: k, selected: k === b.kind }, name))),
    h('label', { for: 'ban-value' }, 'Which'), h('input', { id: 'ban-value', name: 'value', value: b.value, required: true, class: 'mono', spellcheck: 'false', autocomplete: 'off', placeholder: '192.0.2.0/24' }),
    h('label', { for: 'ban-hours' }, 'Hours; 0: until it is lifted'), h('input', { id: 'ban-hours', name: 'hours', type: 'number', min: 0, max: 87600, step: 'any', value: 24 }),
    h('label', { for: 'ban-reason' }, 'Why'), h('input', { id: 'ban-reason', name: 'reason', autocomplete: 'off' }),
  ], { label: 'Ban', danger: true, run: async v => {
    const whom = { kind: v.get('kind'), value: v.get('value') };
    told(await api('PUT', path(whom), { lifetime_ns: Math.round(Number(v.get('hours')) * 3600) * 1e9, reason: v.get('reason') }));
    return whom;
  } });
  if (!made) return;
  toast(`${made.value} is banned.`);
  done();
}

async function lift(b, done) {
  const sure = await dialog('Lift the ban of ' + b.value, [h('p', {}, 'It may connect again at once.')],
    { label: 'Lift it', danger: true, run: () => api('DELETE', path(b)) });
  if (!sure) return;
  toast(`${b.value} is not banned any more.`);
  done();
}
