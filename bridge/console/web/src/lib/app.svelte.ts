// The state that all pages share: who is logged in, language, place, what the server says.
import client, { ask, Failure, session as calls } from './api'
import { follow } from './sse'
import * as st from './state'
import type { Event, Scope, Session } from './types'
import { explain, fill, words, type Key, type Lang } from './words'

const base = '/console'

function stored(key: string): string | null {
  try {
    return localStorage.getItem(key)
  } catch {
    return null // storage is switched off
  }
}

function store(key: string, value: string): void {
  try {
    localStorage.setItem(key, value)
  } catch {
    // then it lasts as long as the page
  }
}

export type Theme = 'auto' | 'light' | 'dark'
export interface Toast {
  id: number
  text: string
  bad: boolean
}

const savedTheme = stored('sparkle.theme')
export const app = $state({
  lang: (stored('sparkle.lang') === 'en' ? 'en' : 'zh') as Lang,
  theme: (savedTheme === 'light' || savedTheme === 'dark' ? savedTheme : 'auto') as Theme,
  path: here(),
  session: undefined as Session | null | undefined,
  live: st.empty(),
  /** false: the event stream broke and is not back. */
  connected: true,
  refused: 0,
  now: Date.now(),
  toasts: [] as Toast[],
  spoken: '',
})

export function t(key: Key, holes?: Record<string, string | number>): string {
  return fill(words[app.lang][key], holes)
}

export function setLang(lang: Lang): void {
  app.lang = lang
  store('sparkle.lang', lang)
  document.documentElement.lang = lang === 'zh' ? 'zh-CN' : 'en'
}

export function setTheme(theme: Theme): void {
  app.theme = theme
  store('sparkle.theme', theme)
  document.documentElement.dataset.theme = theme
}

function here(): string {
  return location.pathname.startsWith(base) ? location.pathname.slice(base.length).replace(/\/$/, '') || '/' : '/'
}

export const href = (path: string) => base + path

export function go(path: string): void {
  history.pushState(null, '', base + path)
  app.path = here()
  window.scrollTo(0, 0)
}

/** For links: a plain click stays in the page, any other is the browser's. */
export function link(e: MouseEvent): void {
  if (e.defaultPrevented || e.button || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return
  e.preventDefault()
  go((e.currentTarget as HTMLAnchorElement).pathname.slice(base.length))
}

export const roomID = () => /^\/conferences\/([^/]+)$/.exec(app.path)?.[1] ?? null
export const may = (s: Scope) => app.session?.scopes.includes(s) || app.session?.scopes.includes('admin') || false

let toastID = 0
export function toast(text: string, bad = false): void {
  const id = ++toastID
  app.toasts.push({ id, text, bad })
  while (app.toasts.length > 4) app.toasts.shift()
  setTimeout(() => dismiss(id), bad ? 8000 : 4000)
}

export function dismiss(id: number): void {
  const i = app.toasts.findIndex((x) => x.id === id)
  if (i >= 0) app.toasts.splice(i, 1)
}

export function reason(e: unknown): string {
  return e instanceof Failure ? explain(app.lang, e.code, e.status) : t('error.generic')
}

/** Runs an action of the user; a failure is shown in words. */
export async function act<T>(what: () => Promise<T>): Promise<T | undefined> {
  try {
    return await what()
  } catch (e) {
    if (!(e instanceof Failure && e.status === 401)) toast(reason(e), true)
    return undefined
  }
}

export async function whoami(): Promise<void> {
  try {
    app.session = await ask(client.GET('/v1/sessions'))
  } catch (e) {
    if (e instanceof Failure && e.status === 401) {
      app.session = null
      return
    }
    app.connected = false
    setTimeout(() => void whoami(), 2000)
    return
  }
  app.connected = true
}

export async function login(account: string, password: string): Promise<void> {
  app.session = await ask(client.POST('/v1/sessions', { body: { account, password } }))
  app.connected = true
}

export async function logout(): Promise<void> {
  await act(() => ask(client.DELETE('/v1/sessions')))
  app.session = null
}

let pending: st.Change[] = []

/** A screen reader hears what happened in one sentence at most every two seconds. */
function digest(): void {
  if (!pending.length) return
  const parts: string[] = []
  for (const state of ['in_conference', 'ringing', 'idle'] as const) {
    const names = [...new Set(pending.filter((c) => c.member.state === state).map((c) => c.member.name))]
    if (!names.length) continue
    const sep = app.lang === 'zh' ? '、' : ', '
    const who = names.length <= 3 ? names.join(sep) : t('say.many', { name: names[0] ?? '', n: names.length })
    parts.push(t(`say.${state}`, { names: who }))
  }
  pending = []
  app.spoken = parts.join(app.lang === 'zh' ? '；' : '; ')
}

/** Follows the events of one conference, or of all. Ends when the returned function is called. */
export function watch(conference: string | null): () => void {
  app.live = st.empty()
  app.refused = 0
  const url = '/v1/events' + (conference ? '?conference=' + encodeURIComponent(conference) : '')
  const stream = follow(url, {
    message(m) {
      let e: Event
      try {
        e = JSON.parse(m.data) as Event
      } catch {
        return stream.restart() // cut short on its way
      }
      const { gap, change } = st.apply(app.live, e)
      if (change) pending.push(change)
      if (gap) stream.restart()
    },
    connected(up) {
      app.connected = up
    },
    refused(status) {
      if (status === 401) app.session = null
      else app.refused = status
    },
  })
  const tick = setInterval(() => (app.now = Date.now()), 1000)
  const speak = setInterval(digest, 2000)
  return () => {
    stream.close()
    clearInterval(tick)
    clearInterval(speak)
    pending = []
    app.connected = true
  }
}

calls.lost = () => {
  if (app.session) toast(t('e.session_expired'), true)
  app.session = null
}
window.addEventListener('popstate', () => (app.path = here()))
setLang(app.lang)
setTheme(app.theme)
