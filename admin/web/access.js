// Who may do what: users, rules, why, and the tokens of this API.
import { api, day, dialog, failed, fill, h, mark, toast, told } from './lib.js';
import { list } from './list.js';

const tabs = { users: 'Users', rules: 'Rules', explain: 'Explain', tokens: 'API tokens' };

export function show(box, state, parameters) {
  const which = tabs[parameters.get('tab')] ? parameters.get('tab') : 'users';
  const body = h('div', { class: 'lists' });
  fill(box, h('h1', {}, 'Access'),
    h('div', { class: 'tabs', role: 'navigation', 'aria-label': 'Access' }, Object.entries(tabs).map(([k, name]) =>
      h('a', { href: '#/access?tab=' + k, 'aria-current': k === which ? 'true' : null }, name))), body);
  parameters.delete('tab');
  return { users, rules, explain, tokens }[which](body, state, parameters);
}

function users(box, state, parameters) {
  const admin = state.may('admin');
  const columns = [
    { name: 'User', of: u => h('span', { class: 'id' }, u.name) },
    { name: 'State', of: u => u.disabled ? mark('off', 'disabled') : mark('ok', 'enabled') },
    { name: 'Proved by', of: u => u.has_password ? 'password or certificate' : 'certificate only' },
    { name: 'Roles', of: u => u.roles && u.roles.length ? u.roles.map(r => h('span', { class: 'chip' }, r)) : h('span', { class: 'none' }, 'none') },
    { name: '', label: 'Explain', class: 'do', of: u => [
      h('a', { class: 'button', href: '#/access?tab=explain&user=' + encodeURIComponent(u.name) }, 'Explain'),
      admin && h('button', { 'data-key': 't' + u.name, onclick: () => toggle(u) }, u.disabled ? 'Enable' : 'Disable…')] },
  ];
  const found = list(box, 'users', {
    tab: 'users', one: 'user', many: 'users', columns, hint: 'Search users  ( / )',
    actions: admin && h('button', { onclick: add }, 'Add a user…'),
    none: ['There are no users', 'Add one here or with mqcluster user add.'],
  }, parameters);
  async function toggle(u) {
    const to = !u.disabled;
    if (to) {
      const sure = await dialog('Disable ' + u.name, [h('p', {}, 'Its clients are sent away at once, on every node, and it cannot connect until it is enabled.')],
        { label: 'Disable', danger: true, run: () => change(u.name, { disabled: true }) });
      if (!sure) return;
    } else {
      try { await change(u.name, { disabled: false }); } catch (e) { toast(e.message, true); return; }
    }
    toast(`${u.name} is ${to ? 'disabled' : 'enabled'}.`);
    found.reload();
  }
  async function add() {
    const name = await dialog('Add a user', [
      h('label', { for: 'user-name' }, 'Name'), h('input', { id: 'user-name', name: 'name', required: true, spellcheck: 'false', autocomplete: 'off' }),
      h('label', { for: 'user-password' }, 'Password; without one only a certificate proves it'), h('input', { id: 'user-password', name: 'password', type: 'password', autocomplete: 'new-password' }),
      h('label', { for: 'user-roles' }, 'Roles, separated by blanks'), h('input', { id: 'user-roles', name: 'roles', spellcheck: 'false' }),
    ], { label: 'Add', run: async v => {
      const roles = v.get('roles').split(/\s+/).filter(Boolean);
      const password = v.get('password') ? btoa(String.fromCharCode(...new TextEncoder().encode(v.get('password')))) : undefined;
      await change(v.get('name'), { password, roles });
      return v.get('name');
    } });
    if (name) { toast(`${name} may connect; what it may do, rules say.`); found.reload(); }
  }
  return found.end;
}

async function change(name, as) {
  return told(await api('PUT', 'users/' + encodeURIComponent(name), as));
}

function rules(box, state, parameters) {
  const admin = state.may('admin');
  const found = list(box, 'acls', {
    tab: 'rules', one: 'subject', many: 'subjects', hint: 'Search subjects  ( / )',
    actions: admin && h('button', { onclick: () => edit({ subject: '', rules: [] }) }, 'Add rules…'),
    columns: [
      { name: 'Subject', of: a => h('span', { class: 'id' }, a.subject) },
      { name: 'Rules, in the order that counts', class: 'mono', of: a => h('ol', { class: 'rules' }, a.rules.map(r => h('li', { class: r.startsWith('deny') ? 'deny' : 'allow' }, r))) },
      { name: '', label: 'Edit', class: 'do', of: a => admin && h('button', { 'data-key': 'a' + a.subject, 'aria-label': 'Edit the rules of ' + a.subject, onclick: () => edit(a) }, 'Edit…') },
    ],
    none: ['There are no rules', 'What no rule allows is denied: nobody may publish or subscribe yet.'],
  }, parameters);
  async function edit(a) {
    const done = await dialog(a.subject ? 'Rules of ' + a.subject : 'Add rules', [
      !a.subject && [h('label', { for: 'acl-subject' }, 'Subject: user:NAME, role:NAME, anonymous, or * for everyone'), h('input', { id: 'acl-subject', name: 'subject', required: true, class: 'mono', spellcheck: 'false' })],
      h('label', { for: 'acl-rules' }, 'One rule a line; the first that matches decides'),
      h('textarea', { id: 'acl-rules', name: 'rules', rows: 8, class: 'mono', spellcheck: 'false', value: a.rules.join('\n'), placeholder: 'allow publish sensors/%c/#\nallow subscribe commands/%c/#' }),
      h('p', { class: 'hint' }, 'allow or deny, then publish, subscribe, both, receive or request, then a filter; %u is the user, %c the client id. Without a rule the subject is removed. It acts on connected clients at once.'),
    ], { wide: true, label: 'Set the rules', run: async v => {
      const subject = a.subject || v.get('subject');
      return told(await api('PUT', 'acls/' + encodeURIComponent(subject), { rules: v.get('rules').split('\n').map(r => r.trim()).filter(Boolean) }));
    } });
    if (done) { toast('The rules are in force.'); found.reload(); }
  }
  return found.end;
}

function explain(box, state, parameters) {
  const answer = h('div', { class: 'answer', role: 'status' });
  const field = (name, label, hint, needed) => h('div', {}, h('label', { for: 'x-' + name }, label),
    h('input', { id: 'x-' + name, name, value: parameters.get(name) || '', placeholder: hint, required: needed, class: 'mono', spellcheck: 'false', autocomplete: 'off' }));
  const form = h('form', { class: 'ask' },
    field('user', 'User', 'empty: a client without one'), field('client', 'Client id', 'dev1'),
    h('div', {}, h('label', { for: 'x-action' }, 'May it'), h('select', { id: 'x-action', name: 'action' }, ['publish', 'subscribe'].map(a => h('option', { value: a, selected: a === parameters.get('action') }, a)))),
    field('topic', 'Topic or filter', 'plant/dev1/temperature', true),
    h('button', { class: 'primary', type: 'submit' }, 'Explain'));
  fill(box, h('p', { class: 'hint' }, 'Asks the same code that decides for clients, and says which rule it went by.'), form, answer);
  form.addEventListener('submit', async e => {
    e.preventDefault();
    const q = Object.fromEntries(new FormData(form));
    try {
      const a = await api('POST', 'acl/explain', q);
      fill(answer, h('p', { class: 'verdict ' + (a.allowed ? 'yes' : 'no') }, mark(a.allowed ? 'ok' : 'critical', a.allowed ? 'Allowed' : 'Denied')),
        h('p', {}, a.reason),
        a.rule && h('dl', { class: 'pairs' }, h('dt', {}, 'Rule'), h('dd', { class: 'mono' }, a.rule), h('dt', {}, 'Of'), h('dd', { class: 'mono' }, a.subject)));
    } catch (error) { fill(answer, failed(error)); }
  });
  if (parameters.get('topic')) form.requestSubmit();
}

function tokens(box, state, parameters) {
  const admin = state.may('admin');
  const found = list(box, 'api-tokens', {
    tab: 'tokens', one: 'token', many: 'tokens', hint: 'Search names  ( / )',
    actions: admin && h('button', { onclick: make }, 'Make a token…'),
    columns: [
      { name: 'Name', of: t => t.name },
      { name: 'Role', of: t => h('span', { class: 'chip' }, t.role) },
      { name: 'Id', class: 'mono', of: t => t.id },
      { name: 'Made', num: true, class: 'date', of: t => day(t.created_at) },
      { name: 'Expires', num: true, class: 'date', of: t => t.expires_at ? (new Date(t.expires_at) < new Date() ? h('span', { class: 'late' }, 'has expired') : day(t.expires_at)) : 'never' },
      { name: '', label: 'Remove', class: 'do', of: t => admin && h('button', { 'data-key': 'r' + t.id, 'aria-label': 'Remove the token ' + t.name, onclick: () => drop(t) }, 'Remove…') },
    ],
    none: ['There are no tokens', 'Make one here or with mqcluster api-token create.'],
  }, parameters);
  async function make() {
    const t = await dialog('Make a token', [
      h('label', { for: 'token-name' }, 'Who or what uses it'), h('input', { id: 'token-name', name: 'name', required: true, autocomplete: 'off' }),
      h('label', { for: 'token-role' }, 'Role'), h('select', { id: 'token-role', name: 'role' },
        h('option', { value: 'viewer' }, 'viewer: reads'), h('option', { value: 'operator' }, 'operator: works with clients and messages, drains nodes'), h('option', { value: 'admin' }, 'admin: everything')),
      h('label', { for: 'token-days' }, 'Days until it expires; 0: never'), h('input', { id: 'token-days', name: 'days', type: 'number', min: 0, max: 3650, value: 90 }),
    ], { label: 'Make it', run: v => api('POST', 'api-tokens', { name: v.get('name'), role: v.get('role'), ttl_ns: Number(v.get('days')) * 86400e9 }) });
    if (!t) return;
    await dialog('The token of ' + t.name, [h('p', {}, 'It is shown this once. Whoever has it may do what its role allows.'), h('pre', { tabindex: '0', class: 'secret' }, t.token)], { cancel: 'Close' });
    found.reload();
  }
  async function drop(t) {
    const done = await dialog('Remove the token ' + t.name, [h('p', {}, 'Whoever uses it is out at once, logins with it included.')], { label: 'Remove', danger: true, run: () => api('DELETE', 'api-tokens/' + encodeURIComponent(t.id)) });
    if (done) { toast('The token is removed.'); found.reload(); }
  }
  return found.end;
}
