// Messages as they are published.
import { bytes, clock, count, decode, empty, fill, h, payload, plural, query, stream, text } from './lib.js';

const kept = 500;

export function show(box, state, parameters) {
  const filter = h('input', { id: 'filter', name: 'filter', value: parameters.get('filter') || '', placeholder: 'plant/+/temperature', required: true, class: 'mono', spellcheck: 'false', autocomplete: 'off' });
  const start = h('button', { class: 'primary', type: 'submit' }, 'Tail');
  const pause = h('button', { type: 'button', hidden: true }, 'Pause');
  const wipe = h('button', { type: 'button', hidden: true, onclick: () => { fill(rows); } }, 'Clear');
  const told = h('span', { class: 'total', role: 'status' });
  const rows = h('ol', { class: 'messages', 'aria-label': 'Messages, the newest first', tabindex: '0' });
  const body = h('div', { class: 'body' });
  const form = h('form', { class: 'tools' }, h('label', { for: 'filter', class: 'hidden' }, 'Topic filter'), filter, start, pause, wipe, told);
  fill(box, h('h1', {}, 'Live tail'), form, body);
  fill(body, empty('Nothing is watched', 'Write a topic filter: + stands for one level, # at the end for all below. Messages of every node are shown, what was published before is not.'));
  let end = null, paused = false, seen = 0, missed = 0, waiting = [], frame = 0, lastCount = 0, perSecond = 0;

  const flush = () => {
    frame = 0;
    const some = waiting.splice(0).slice(-kept);
    if (paused || !some.length) return;
    rows.prepend(...some.reverse().map(row));
    while (rows.children.length > kept) rows.lastChild.remove();
  };
  const say = () => {
    perSecond = seen - lastCount;
    lastCount = seen;
    text(told, `${count(perSecond)}/s, ${plural(seen, 'message', 'messages')}` + (missed ? `, ${count(missed)} of them too fast to show` : '') + (paused ? ', paused' : ''));
  };
  const ticker = setInterval(() => { if (end) say(); }, 1000);
  const stop = () => { if (end) end(); end = null; };
  const begin = () => {
    stop();
    seen = missed = lastCount = 0;
    waiting = [];
    paused = false;
    pause.textContent = 'Pause';
    fill(rows);
    fill(body, h('div', { class: 'columns', 'aria-hidden': 'true' }, ['Time', 'Topic', 'Payload', 'QoS', 'Size'].map(t => h('span', {}, t))), rows);
    pause.hidden = wipe.hidden = false;
    history.replaceState(null, '', '#/tail' + query({ filter: filter.value }));
    end = stream('watch/messages' + query({ filter: filter.value }), {
      message: m => {
        if (m.missed) { missed += m.missed; seen += m.missed; return; }
        seen++;
        if (paused) return;
        waiting.push(m);
        if (!frame) frame = requestAnimationFrame(flush);
      },
    }, on => { if (on) { filter.removeAttribute('aria-invalid'); say(); } });
  };
  pause.addEventListener('click', () => { paused = !paused; pause.textContent = paused ? 'Go on' : 'Pause'; say(); });
  form.addEventListener('submit', e => {
    e.preventDefault();
    const why = wrong(filter.value);
    filter.setCustomValidity(why);
    if (why) { filter.reportValidity(); return; }
    begin();
  });
  filter.addEventListener('input', () => filter.setCustomValidity(''));
  if (filter.value && !wrong(filter.value)) begin(); else filter.focus();
  return () => { stop(); clearInterval(ticker); };
}

// wrong says what is wrong with a filter, or "".
function wrong(f) {
  if (f.startsWith('$share/')) return 'Write the filter without $share and group.';
  const levels = f.split('/');
  for (const [i, l] of levels.entries()) {
    if (l.includes('#') && (l !== '#' || i !== levels.length - 1)) return '# stands alone, and at the end.';
    if (l.includes('+') && l !== '+') return '+ stands for a whole level.';
  }
  return '';
}

function row(m) {
  const p = payload(decode(m.payload));
  const shown = p.text.slice(0, 400);
  return h('li', {}, h('details', {},
    h('summary', {},
      h('time', { datetime: m.at }, clock(m.at, true)),
      h('span', { class: 'id' }, m.topic),
      h('span', { class: 'value' }, p.hex && h('span', { class: 'tag' }, 'hex'), shown),
      h('span', { class: 'num' }, m.qos + (m.retain ? ' R' : '')),
      h('span', { class: 'num' }, bytes(m.size))),
    h('pre', {}, p.text + (m.size > 4096 ? '\n… ' + bytes(m.size - 4096) + ' more' : '')),
    h('p', { class: 'hint' }, 'from ', m.publisher || 'an operator', m.retain && ', retained')));
}

