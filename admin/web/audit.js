// Who asked for which change, and what became of it.
import { day, fill, h, mark } from './lib.js';
import { list } from './list.js';

// What operations begin with.
const groups = ['acl', 'api-token', 'backup', 'ban', 'ca', 'cert', 'drain', 'import', 'join', 'leave', 'retained', 'session', 'setting', 'token', 'user'];

export function show(box, state, parameters) {
  const lists = h('div', { class: 'lists' });
  fill(box, h('h1', {}, 'Audit'),
    h('p', { class: 'hint' }, 'Changes of the cluster and attempts at them, the newest first, in the log of the cluster. Messages are none.'), lists);
  return list(lists, 'audit', {
    one: 'record', many: 'records', hint: 'Search who, what or whom  ( / )',
    filters: [
      { name: 'operation', label: 'Operation', options: () => [['', 'All operations'], ...groups.map(g => [g, g])] },
      { name: 'refused', label: 'Outcome', options: () => [['', 'Done and refused'], ['true', 'Refused']] },
    ],
    columns: [
      { name: 'At', class: 'date', of: r => day(r.at) },
      { name: 'Who', of: r => r.actor },
      { name: 'Operation', class: 'mono', of: r => r.operation },
      { name: 'Of', class: 'mono', of: r => r.subject || '–' },
      { name: 'What', of: r => r.detail || '–' },
      { name: 'Outcome', of: r => r.refused ? mark('critical', 'refused: ' + r.refused) : mark('ok', 'done') },
      { name: 'At node', of: r => r.node },
    ],
    none: ['Nothing was changed yet', 'Each change by a verb, a program or this page is recorded here.'],
  }, parameters, 10000).end;
}
