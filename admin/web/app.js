// The frame: who is logged in, where one is, and how the cluster is at any moment.
import { api, fill, h, loggedOut, mark, onLoggedOut, plural, stream, text, clock } from './lib.js';
import * as overview from './overview.js';
import * as clients from './clients.js';
import * as sessions from './sessions.js';
import * as topics from './topics.js';
import * as tail from './tail.js';
import * as routes from './routes.js';
import * as access from './access.js';
import * as certificates from './certificates.js';
import * as bans from './bans.js';
import * as audit from './audit.js';

const pages = { overview, clients, sessions, topics, tail, routes, access, bans, certificates, audit };
const root = document.getElementById('app');

// state is what the pages share.
const state = {
  me: null, overview: null, at: 0, live: false, history: [], watchers: new Set(),
  may(role) { const all = ['viewer', 'operator', 'admin']; return all.indexOf(this.me.role) >= all.indexOf(role); },
};

let endStream = null, endPage = null;

function theme(choice) {
  if (choice) localStorage.setItem('theme', choice);
  const now = localStorage.getItem('theme');
  if (now) document.documentElement.dataset.theme = now;
}

function flip() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches;
  theme(dark ? 'light' : 'dark');
}

async function start() {
  theme();
  onLoggedOut(leave);
  try {
    state.me = await api('GET', 'session');
  } catch (e) {
    login(e.status === 401 ? '' : e.message);
    return;
  }
  enter();
}

// leave goes back to the login.
function leave() {
  if (!state.me) return;
  state.me = null;
  if (endStream) endStream();
  if (endPage) endPage();
  endStream = endPage = null;
  login('The session has ended.');
}

function login(words) {
  document.title = 'mqcluster';
  const fail = h('p', { class: 'fail', role: 'alert', id: 'login-fail' }, words);
  const token = h('input', {
    id: 'token', name: 'token', type: 'password', autocomplete: 'current-password', required: true,
    spellcheck: 'false', 'aria-describedby': 'login-fail token-hint', placeholder: 'MQA1.…',
  });
  const button = h('button', { class: 'primary', type: 'submit' }, 'Log in');
  const form = h('form', { class: 'login' },
    h('img', { src: 'icon.svg', alt: '', width: 40, height: 40 }),
    h('h1', {}, 'mqcluster'),
    h('p', {}, location.host),
    h('label', { for: 'token' }, 'Token'), token, fail, button,
    h('p', { class: 'hint', id: 'token-hint' }, 'An admin makes one on any node: ', h('code', {}, 'mqcluster api-token create --name anna')));
  form.addEventListener('submit', async e => {
    e.preventDefault();
    button.disabled = true;
    try {
      state.me = await api('POST', 'session', { token: token.value.trim() });
      enter();
    } catch (error) {
      fail.textContent = error.message;
      token.select();
    } finally { button.disabled = false; }
  });
  fill(root, h('main', { id: 'main', class: 'door' }, form));
  token.focus();
}

const names = {
  overview: 'Overview', clients: 'Clients', sessions: 'Sessions', topics: 'Topics',
  tail: 'Live tail', routes: 'Routes', access: 'Access', bans: 'Bans',
  certificates: 'Certificates', audit: 'Audit',
};

let health, stale, links, main, place;

function enter() {
  health = h('a', { class: 'health', href: '#/overview' });
  stale = h('div', { class: 'stale', role: 'alert', hidden: true });
  place = h('span', { class: 'place' });
  links = Object.fromEntries(Object.entries(names).map(([k, name]) => [k, h('a', { href: '#/' + k }, name)]));
  main = h('main', { id: 'main', tabindex: '-1' });
  fill(root,
    h('header', {},
      h('a', { class: 'brand', href: '#/overview', 'aria-label': 'mqcluster, overview' }, h('img', { src: 'icon.svg', alt: '', width: 22, height: 22 }), place),
      health,
      h('div', { class: 'me' },
        h('span', { class: 'who', title: 'Logged in as ' + state.me.name }, state.me.name, h('span', { class: 'role' }, state.me.role)),
        h('button', { class: 'plain', onclick: flip, 'aria-label': 'Light or dark', title: 'Light or dark' }, '◐'),
        h('button', { class: 'plain', onclick: logout }, 'Log out'))),
    h('nav', { 'aria-label': 'Pages' }, Object.values(links)),
    stale, main);
  endStream = stream('watch/overview', { overview: take }, on => {
    state.live = on;
    if (!on && state.at) {
      stale.hidden = false;
      stale.textContent = `No connection to ${state.me.node} since ${clock(state.at)}: what is shown is from then. Trying again.`;
      for (const f of state.watchers) f();
    }
  });
  go();
}

async function logout() {
  try { await api('DELETE', 'session'); } catch { /* it ends by itself */ }
  const was = state.me;
  loggedOut();
  if (was) document.getElementById('login-fail').textContent = '';
}

// take notes an overview, and has the page show it.
function take(o) {
  stale.hidden = true;
  const now = Date.now();
  if (state.overview) {
    const seconds = Math.max(0.2, (new Date(o.at) - new Date(state.overview.at)) / 1000);
    const before = Object.fromEntries(state.overview.nodes.map(n => [n.node, n.counters]));
    for (const n of o.nodes) {
      const b = before[n.node];
      const diff = k => !n.up || !b ? 0 : Math.max(0, n.counters[k] < b[k] ? n.counters[k] : n.counters[k] - b[k]) / seconds;
      n.rates = { in: diff('messages_in'), out: diff('messages_out'), bytesIn: diff('bytes_in'), bytesOut: diff('bytes_out'), dropped: diff('dropped') };
    }
    if (new Date(o.at) > new Date(state.overview.at)) {
      const sum = k => o.nodes.reduce((a, n) => a + (n.rates ? n.rates[k] : 0), 0);
      const up = o.nodes.reduce((a, n) => a + (n.up ? n.clients : 0), 0);
      state.history.push({ t: now, in: sum('in'), out: sum('out'), bytesIn: sum('bytesIn'), bytesOut: sum('bytesOut'), dropped: sum('dropped'), clients: up });
      while (state.history.length && state.history[0].t < now - 620e3) state.history.shift();
    }
  }
  state.overview = o;
  state.at = now;
  text(place, o.cluster_name || 'mqcluster');
  const critical = o.alarms.filter(a => a.level === 'critical').length;
  const warnings = o.alarms.filter(a => a.level === 'warning').length;
  const words = critical ? plural(critical, 'critical alarm', 'critical alarms') : warnings ? plural(warnings, 'warning', 'warnings') : 'Healthy';
  const level = critical ? 'critical' : warnings ? 'warning' : 'ok';
  if (health.dataset.words !== words) {
    health.dataset.words = words;
    fill(health, mark(level, words));
  }
  document.title = (critical ? '(' + critical + ') ' : '') + names[current()] + ' – ' + (o.cluster_name || 'mqcluster');
  for (const f of state.watchers) f(o);
}

function current() {
  const name = location.hash.replace(/^#\/?/, '').split('?')[0];
  return pages[name] ? name : 'overview';
}

function go() {
  if (!state.me) return;
  if (endPage) endPage();
  state.watchers.clear();
  const name = current();
  for (const [k, a] of Object.entries(links)) {
    if (k === name) a.setAttribute('aria-current', 'page'); else a.removeAttribute('aria-current');
  }
  const parameters = new URLSearchParams(location.hash.split('?')[1] || '');
  const box = h('div', { class: 'page ' + name });
  fill(main, box);
  endPage = pages[name].show(box, state, parameters) || null;
  document.title = names[name] + ' – ' + (state.overview && state.overview.cluster_name || 'mqcluster');
  links[name].scrollIntoView({ block: 'nearest', inline: 'nearest' });
}

addEventListener('hashchange', () => { go(); if (main) main.focus({ preventScroll: true }); scrollTo(0, 0); });
document.querySelector('.skip').addEventListener('click', e => {
  e.preventDefault();
  const m = document.getElementById('main');
  m.setAttribute('tabindex', '-1');
  m.focus();
});
// The slash goes to the search of a page.
addEventListener('keydown', e => {
  if (e.key !== '/' || e.ctrlKey || e.metaKey || e.altKey || e.target.matches('input, textarea, select')) return;
  const search = document.querySelector('input[type=search]');
  if (search) { e.preventDefault(); search.focus(); }
});
start();
