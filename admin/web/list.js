// A list that the server searches and gives in pages.
import { api, count, debounce, empty, failed, fill, h, plural, query, table } from './lib.js';

// list shows path in box. what is {one, many, columns, row, filters, hint, none, tab}; it
// returns {reload, end}. every is after how many milliseconds it looks again.
export function list(box, path, what, parameters, every) {
  const values = { q: parameters.get('q') || '' };
  for (const f of what.filters || []) values[f.name] = parameters.get(f.name) || '';
  const search = h('input', { type: 'search', value: values.q, placeholder: what.hint, 'aria-label': what.hint, spellcheck: 'false', autocomplete: 'off' });
  const selects = (what.filters || []).map(f => h('select', { 'aria-label': f.label, onchange: e => { values[f.name] = e.target.value; again(); } },
    f.options().map(([v, t]) => h('option', { value: v, selected: v === values[f.name] }, t))));
  const total = h('span', { class: 'total', role: 'status' });
  const body = h('div', { class: 'body' });
  const more = h('button', { hidden: true, onclick: () => load(false) }, 'Show more');
  fill(box, h('div', { class: 'tools' }, search, selects, total, what.actions), body, h('div', { class: 'foot' }, more));
  let items = [], next = '', running = null, timer, ended = false;

  const remember = () => {
    const base = location.hash.split('?')[0];
    history.replaceState(null, '', base + query({ tab: what.tab, ...values }));
  };
  const paint = all => {
    if (!items.length) {
      fill(body, values.q || selects.some(s => s.value) ? empty('Nothing matches', 'Search for another part of a name, or take a filter away.') : empty(what.none[0], what.none[1]));
    } else fill(body, table(what.many, what.columns, items, what.row));
    more.hidden = !next;
    total.textContent = all === undefined ? '' : items.length < all ? `${count(items.length)} of ${plural(all, what.one, what.many)}` : plural(all, what.one, what.many);
  };
  const load = async fresh => {
    if (running) running.abort();
    const mine = running = new AbortController();
    clearTimeout(timer);
    box.setAttribute('aria-busy', 'true');
    try {
      const page = await api('GET', path + query({ ...values, limit: fresh ? Math.max(100, Math.min(items.length, 500)) : 100, cursor: fresh ? '' : next }), undefined, mine.signal);
      if (ended) return;
      items = fresh ? page.items : items.concat(page.items);
      next = page.next || '';
      const focused = document.activeElement && body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      const scroll = body.querySelector('.scroll'), left = scroll ? scroll.scrollLeft : 0;
      paint(page.total);
      if (left) body.querySelector('.scroll')?.scrollTo(left, 0);
      if (focused) { const e = [...body.querySelectorAll('[data-key]')].find(e => e.dataset.key === focused); if (e) e.focus(); }
    } catch (e) {
      if (e.name === 'AbortError' || ended) return;
      if (!items.length || fresh) fill(body, failed(e, () => load(true)));
    } finally {
      if (running === mine) {
        running = null;
        box.removeAttribute('aria-busy');
        if (every && !ended) timer = setTimeout(() => busy() ? later() : load(true), every);
      }
    }
  };
  const later = () => { timer = setTimeout(() => busy() ? later() : load(true), every); };
  // Rows are not made anew under a finger, and not where nobody looks.
  const busy = () => document.hidden || document.querySelector('dialog[open]') || body.querySelector(':active');
  const again = () => { items = []; next = ''; remember(); load(true); };
  search.addEventListener('input', debounce(() => { if (search.value !== values.q) { values.q = search.value; again(); } }, 200));
  fill(body, h('p', { class: 'wait' }, 'Loading …'));
  load(true);
  return { reload: () => load(true), end: () => { ended = true; clearTimeout(timer); if (running) running.abort(); } };
}
