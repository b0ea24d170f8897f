// Server-sent events over fetch: unlike EventSource it tells a 401 from a lost network, and sees the
// heartbeat, so that a dead connection does not look alive.

export interface Message {
  id: string
  event: string
  data: string
}

/** Takes the text as it comes, in any pieces, and gives whole messages (HTML §9.2.6). */
export class Parser {
  private rest = ''
  private id = ''
  private event = ''
  private data: string[] = []

  push(text: string): Message[] {
    this.rest += text
    const out: Message[] = []
    for (;;) {
      const m = /\r\n|\n|\r(?!$)/.exec(this.rest) // a final CR may be half of CRLF
      if (!m) return out
      const line = this.rest.slice(0, m.index)
      this.rest = this.rest.slice(m.index + m[0].length)
      if (line === '') {
        if (this.data.length) out.push({ id: this.id, event: this.event || 'message', data: this.data.join('\n') })
        this.id = ''
        this.event = ''
        this.data = []
        continue
      }
      const colon = line.indexOf(':')
      if (colon === 0) continue // a comment: the heartbeat
      const field = colon < 0 ? line : line.slice(0, colon)
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
      if (field === 'data') this.data.push(value)
      else if (field === 'id') this.id = value
      else if (field === 'event') this.event = value
    }
  }
}

export interface Handlers {
  message(m: Message): void
  /** true: events flow; false: they do not, and we try again. */
  connected(up: boolean): void
  /** The server refused for good (401, 403, 404). */
  refused(status: number): void
}

/** The server sends something at least every 15 s; after this long it is gone. */
const silence = 40_000
const firstWait = 500
const longestWait = 10_000

/** Follows url until close is called. restart forgets the place and asks for a new snapshot. */
export function follow(url: string, h: Handlers): { close(): void; restart(): void } {
  let closed = false
  let last = ''
  let abort = new AbortController()
  let wake: (() => void) | null = null

  async function once(): Promise<boolean> {
    abort = new AbortController()
    const watchdog = { timer: 0 }
    const kick = () => {
      clearTimeout(watchdog.timer)
      watchdog.timer = window.setTimeout(() => abort.abort(), silence)
    }
    let heard = false
    try {
      kick()
      const headers: Record<string, string> = { Accept: 'text/event-stream' }
      if (last) headers['Last-Event-ID'] = last
      const res = await fetch(url, { headers, signal: abort.signal, cache: 'no-store' })
      if (!res.ok || !res.body) {
        if (res.status === 401 || res.status === 403 || res.status === 404) {
          closed = true
          h.refused(res.status)
        }
        return false
      }
      heard = true
      h.connected(true)
      const parser = new Parser()
      const reader = res.body.pipeThrough(new TextDecoderStream()).getReader()
      for (;;) {
        const { value, done } = await reader.read()
        if (done) return heard
        kick()
        for (const m of parser.push(value)) {
          if (closed) return heard
          if (m.id) last = m.id
          h.message(m)
        }
      }
    } catch {
      return heard // the network went away, or we closed
    } finally {
      clearTimeout(watchdog.timer)
    }
  }

  async function run(): Promise<void> {
    let wait = firstWait
    while (!closed) {
      if (await once()) wait = firstWait
      if (closed) return
      h.connected(false)
      await new Promise<void>((done) => {
        const t = setTimeout(done, wait * (0.75 + Math.random() / 2))
        wake = () => {
          clearTimeout(t)
          done()
        }
      })
      wake = null
      wait = Math.min(wait * 2, longestWait)
    }
  }
  const online = () => wake?.()
  window.addEventListener('online', online)
  void run()
  return {
    close() {
      closed = true
      window.removeEventListener('online', online)
      abort.abort()
      wake?.()
    },
    restart() {
      last = ''
      abort.abort()
    },
  }
}
