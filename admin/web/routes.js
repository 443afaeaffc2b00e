// Which nodes want messages of QoS 0 for what.
import { fill, h } from './lib.js';
import { list } from './list.js';

export function show(box, state, parameters) {
  const lists = h('div', { class: 'lists' });
  fill(box, h('h1', {}, 'Routes'),
    h('p', { class: 'hint' }, 'A node tells the others which filters its connected clients have. A message of QoS 0 goes only to nodes that want it; what has a promise is in the log, which every node has.'), lists);
  const nodes = () => [['', 'All nodes'], ...((state.overview && state.overview.nodes) || []).map(n => [n.node, n.node])];
  return list(lists, 'routes', {
    one: 'filter', many: 'filters', hint: 'Search filters  ( / )',
    filters: [{ name: 'node', label: 'Node', options: nodes }],
    columns: [
      { name: 'Filter', class: 'mono', of: r => r.filter },
      { name: 'Wanted by', of: r => r.nodes.map(n => h('span', { class: 'chip' }, n)) },
      { name: '', label: 'Tail', class: 'do', of: r => h('a', { class: 'button', href: '#/tail?filter=' + encodeURIComponent(r.filter) }, 'Tail') },
    ],
    none: ['No routes', 'No connected client has a subscription.'],
  }, parameters, 10000).end;
}
