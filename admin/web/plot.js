// Small plots of the last ten minutes: lines over time, no more ink than that.
import { h, fill, text, clock } from './lib.js';

const W = 320, H = 88, TOP = 6, BOTTOM = 2;
const SPAN = 600e3;

// plot makes one: series are {name, class}; format writes a value.
export function plot(title, series, format) {
  const now = h('dl', { class: 'now' });
  const values = series.map(s => h('dd', {}, '–'));
  fill(now, series.map((s, i) => [h('dt', {}, series.length > 1 && h('span', { class: 'key ' + s.class, 'aria-hidden': 'true' }), s.name), values[i]]));
  const lines = series.map(s => h('svg:path', { class: 'line ' + s.class }));
  const fills = series.map((s, i) => h('svg:path', { class: 'area ' + s.class, hidden: i > 0 }));
  const cross = h('svg:line', { class: 'cross', y1: 0, y2: H, visibility: 'hidden' });
  const top = h('span', { class: 'top' });
  const at = h('span', { class: 'at' });
  const svg = h('svg:svg', { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: 'none', role: 'img' },
    h('svg:line', { class: 'grid', x1: 0, x2: W, y1: TOP, y2: TOP }),
    h('svg:line', { class: 'grid', x1: 0, x2: W, y1: (H + TOP) / 2, y2: (H + TOP) / 2 }),
    h('svg:line', { class: 'base', x1: 0, x2: W, y1: H - BOTTOM, y2: H - BOTTOM }),
    fills, lines, cross);
  const element = h('figure', { class: 'plot' },
    h('figcaption', {}, h('h2', {}, title), now),
    h('div', { class: 'canvas' }, svg, top, at),
    h('div', { class: 'axis', 'aria-hidden': 'true' }, h('span', {}, '−10 min'), h('span', {}, '−5 min'), h('span', {}, 'now')));
  let points = [], end = 0, hover = null;

  const x = t => W - (end - t) / SPAN * W;
  const show = () => {
    const p = hover === null ? points[points.length - 1] : nearest(points, end - (1 - hover) * SPAN);
    series.forEach((s, i) => text(values[i], p ? format(p.v[i]) : '–'));
    element.classList.toggle('past', hover !== null && !!p);
    text(at, hover !== null && p ? clock(p.t) : '');
    if (hover !== null && p) {
      cross.setAttribute('x1', x(p.t)); cross.setAttribute('x2', x(p.t));
    }
    cross.setAttribute('visibility', hover !== null && p ? 'visible' : 'hidden');
  };
  svg.addEventListener('pointermove', e => {
    const box = svg.getBoundingClientRect();
    hover = Math.min(1, Math.max(0, (e.clientX - box.left) / box.width));
    show();
  });
  svg.addEventListener('pointerleave', () => { hover = null; show(); });

  // draw shows points {t, v: [one for each series]}, oldest first.
  const draw = (all, t) => {
    points = all; end = t;
    let most = 0;
    for (const p of points) if (p.t >= end - SPAN) for (const v of p.v) most = Math.max(most, v);
    const scale = nice(most);
    const y = v => H - BOTTOM - v / scale * (H - BOTTOM - TOP);
    series.forEach((s, i) => {
      let d = '', first = 0, last = 0;
      for (const p of points) {
        if (p.t < end - SPAN - 4000) continue;
        const px = x(p.t).toFixed(1);
        d += (d ? 'L' : (first = px, 'M')) + px + ' ' + y(p.v[i]).toFixed(1);
        last = px;
      }
      lines[i].setAttribute('d', d);
      if (i === 0) fills[i].setAttribute('d', d && d + `L${last} ${H - BOTTOM}L${first} ${H - BOTTOM}Z`);
    });
    text(top, format(scale));
    svg.setAttribute('aria-label', title + ' in the last ten minutes: ' + series.map((s, i) => {
      const p = points[points.length - 1];
      return s.name + ' ' + (p ? format(p.v[i]) : 'not known');
    }).join(', ') + ', at most ' + format(most));
    show();
  };
  return { element, draw };
}

function nearest(points, t) {
  let best = null;
  for (const p of points) if (!best || Math.abs(p.t - t) < Math.abs(best.t - t)) best = p;
  return best;
}

// nice is a round number at or above n.
function nice(n) {
  if (n <= 0) return 1;
  const ten = 10 ** Math.floor(Math.log10(n));
  for (const f of [1, 1.5, 2, 3, 4, 5, 6, 8]) if (f * ten >= n) return f * ten;
  return 10 * ten;
}
