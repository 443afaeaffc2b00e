// Certificates that the cluster issued, by their end.
import { api, day, dialog, empty, failed, fill, h, mark, plural, table, toast } from './lib.js';

export function show(box, state) {
  const body = h('div', { class: 'body' });
  const total = h('span', { class: 'total', role: 'status' });
  const search = h('input', { type: 'search', placeholder: 'Search names and serials  ( / )', 'aria-label': 'Search names and serials', spellcheck: 'false' });
  const which = h('select', { 'aria-label': 'State' }, [['', 'In force'], ['all', 'All']].map(([v, t]) => h('option', { value: v }, t)));
  fill(box, h('h1', {}, 'Certificates'), h('div', { class: 'tools' }, search, which, total), body, h('div', { class: 'foot' }));
  fill(body, h('p', { class: 'wait' }, 'Loading …'));
  let all = [];
  const paint = () => {
    const part = search.value.toLowerCase();
    const some = all.filter(c => (which.value === 'all' || !c.revoked && c.left > 0) && (c.subject.toLowerCase().includes(part) || c.serial.includes(part)));
    total.textContent = plural(some.length, 'certificate', 'certificates') + (some.length > 1000 ? ', the first 1,000 shown' : '');
    if (!some.length) { fill(body, empty('No certificates', part ? 'Nothing matches.' : 'None is in force.')); return; }
    fill(body, table('Certificates', [
      { name: 'Name', of: c => h('span', { class: 'id' }, c.subject) },
      { name: 'Kind', of: c => c.kind },
      { name: 'State', of: c => c.revoked ? mark('off', 'revoked') : c.left <= 0 ? mark('off', 'ended') : soon(c) ? mark('warning', 'ends soon') : mark('ok', 'in force') },
      { name: 'Days left', num: true, of: c => c.revoked || c.left <= 0 ? '–' : c.left < 2 ? c.left.toFixed(1) : String(Math.floor(c.left)) },
      { name: 'Ends', num: true, class: 'date', of: c => day(c.not_after) },
      { name: 'Issued', num: true, class: 'date', of: c => day(c.not_before) },
      { name: 'Serial', class: 'mono clip', of: c => h('span', { title: c.serial }, c.serial) },
      { name: '', label: 'Revoke', class: 'do', of: c => state.may('admin') && !c.revoked && c.left > 0 && c.kind === 'client' && h('button', { 'aria-label': 'Revoke the certificate of ' + c.subject, onclick: () => revoke(c) }, 'Revoke…') },
    ], some.slice(0, 1000)));
  };
  const load = async () => {
    try {
      const now = Date.now();
      all = (await api('GET', 'cert/list') || []).map(c => ({ ...c, left: (new Date(c.not_after) - now) / 86400e3 }));
      all.sort((a, b) => a.left - b.left);
      paint();
    } catch (e) { fill(body, failed(e, load)); }
  };
  async function revoke(c) {
    const done = await dialog('Revoke the certificate of ' + c.subject, [
      h('p', {}, 'Whoever has it is out at once, on every node. This cannot be taken back; issue a new one with mqcluster cert issue.'), h('p', { class: 'mono hint' }, c.serial),
    ], { label: 'Revoke', danger: true, run: () => api('POST', 'cert/revoke', { name: c.serial }) });
    if (done) { toast('The certificate is revoked.'); load(); }
  }
  search.addEventListener('input', paint);
  which.addEventListener('change', paint);
  load();
}

// soon is what the alarm of the cluster goes by. A node renews its own.
const soon = c => c.kind === 'client' ? c.left < 14 : c.left < 3;
