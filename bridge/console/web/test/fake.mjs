// A small server that speaks the API's contract from memory, with events, so that the pages can be
// tested without a daemon. A number's last digit says what its phone does: 1 answers with video,
// 2 by voice, 3 is busy, 4 never answers (rings until hung up), 5 answers in AMR voice and is poor.
import { createServer } from 'node:http'
import { existsSync, readFileSync } from 'node:fs'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'

const dist = fileURLToPath(new URL('../../dist/app', import.meta.url))
const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' }
// The headers of console.go: what they forbid has to show here, too.
const csp = "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

export async function fake({ picture = null, auto = false } = {}) {
  const confs = new Map()
  const log = [] // {seq per conference in the event, id rising}
  const streams = new Set()
  const requests = []
  let ids = 0
  let eventID = 0
  let attachments = [{ name: 'lab', mode: 'ue', state: 'registered', up: true, since: new Date().toISOString(), calls: 0 }]
  const refuse = { pictures: 0 }
  const id = (p) => `${p}_${String(++ids).padStart(6, '0')}`
  const now = () => new Date().toISOString()

  function emit(c, type, data, extra = {}) {
    const talk = type === 'talkers'
    const e = { id: talk ? '' : String(++eventID), seq: talk ? 0 : ++c.seq, time: now(), type, conference_id: c.conference.id, ...extra, data: structuredClone(data) }
    if (!talk) log.push(e)
    for (const s of streams) if (!s.only || s.only === c.conference.id) write(s.res, e)
  }
  const write = (res, e) => res.write(`${e.id ? `id: ${e.id}\n` : ''}event: ${e.type}\ndata: ${JSON.stringify(e)}\n\n`)

  function tally(c) {
    const n = (s) => c.members.filter((m) => m.state === s).length
    Object.assign(c.conference, { members: c.members.length, ringing: n('ringing'), in_conference: n('in_conference'), updated_at: now() })
    c.conference.state = c.conference.ringing + c.conference.in_conference ? 'active' : 'idle'
    emit(c, 'conference.updated', c.conference)
  }
  const changed = (c, m) => emit(c, 'member.updated', m, { member_id: m.id })

  function dial(c, m) {
    m.state = 'ringing'
    m.leg = {
      id: id('leg'), member_id: m.id, conference_id: c.conference.id, state: 'ringing', since: now(), direction: 'outbound', attachment: 'lab', outcome: null, sip: null, text: null,
      started_at: now(), ringing_at: now(), connected_at: null, ended_at: null, media: { audio: null, video: null, why_no_video: null, why_no_audio: null, video_state: 'none', video_reason: null }, quality: null, cs_access: false, media_change: null,
    }
    emit(c, 'leg.updated', m.leg, { member_id: m.id, leg_id: m.leg.id })
    changed(c, m)
    return m.leg
  }
  function answer(c, m) {
    const video = m.number.endsWith('1')
    const poor = m.number.endsWith('5')
    Object.assign(m.leg, { state: 'connected', since: now(), connected_at: now(), quality: { rx_loss: 0, rx_jitter_ms: 3, tx_loss: 0, rtt_ms: 40, mos: poor ? 2.4 : 4.3, rx_packets: 1, tx_packets: 1, rx_stranger: 0 } })
    m.leg.media = { why_no_audio: null, video_state: video ? 'flowing' : 'refused', video_reason: null, audio: { codec: 'AMR-WB', mode: '23.85', payload: 104 }, video: video ? { codec: 'H264', profile: '42c00c', width: 240, height: 320 } : null, why_no_video: video ? null : poor ? 'rejected_488' : 'refused' }
    m.state = 'in_conference'
    emit(c, 'leg.updated', m.leg, { member_id: m.id, leg_id: m.leg.id })
    changed(c, m)
  }
  const outcomes = {
    busy: [486, '对方正在通话中', 'The line is busy'], hung_up: [0, '已被管理员挂断', 'Hung up by the organiser'],
    cancelled: [487, '呼叫已取消', 'The call was cancelled'], no_answer: [480, '无人接听', 'Nobody answered'],
  }
  function end(c, m, outcome) {
    const [status, zh, en] = outcomes[outcome]
    Object.assign(m.leg, { state: 'ended', outcome, ended_at: now(), sip: status ? { status } : null, text: { zh, en } })
    const leg = m.leg
    m.last_outcome = { outcome, sip: leg.sip, text: leg.text, at: leg.ended_at }
    m.leg = null
    m.state = 'idle'
    emit(c, 'leg.ended', leg, { member_id: m.id, leg_id: leg.id })
    changed(c, m)
  }

  const problem = (res, status, code) => send(res, status, { type: `urn:sparkle:problem:${code}`, title: 'RAW TITLE', status, code, detail: 'RAW DETAIL' }, 'application/problem+json')
  function send(res, status, body, type = 'application/json') {
    res.writeHead(status, { 'Content-Type': type })
    res.end(body === undefined ? undefined : JSON.stringify(body))
  }
  function invite(c, row) {
    if (!/^\+\d{3,15}$/.test(row.number ?? '')) return { status: 422, code: 'number_invalid' }
    if (c.members.some((m) => m.number === row.number)) return { status: 409, code: 'member_exists' }
    const m = { id: id('mbr'), conference_id: c.conference.id, number: row.number, name: row.name || row.number, role: row.role ?? 'speaker', state: 'idle', muted: false, video_muted: false, deaf: false, held: false, hand: false, leg: null, last_outcome: null, created_at: now() }
    c.members.push(m)
    emit(c, 'member.added', m, { member_id: m.id })
    return { status: 201, member: m }
  }
  const problemOf = (status, code) => ({ type: `urn:sparkle:problem:${code}`, title: 'RAW TITLE', status, code, detail: 'RAW DETAIL' })

  async function handle(req, res) {
    const url = new URL(req.url, 'http://x')
    const path = url.pathname
    if (path.startsWith('/console')) return page(path, res)
    let body = ''
    for await (const b of req) body += b
    requests.push({ method: req.method, path, body, headers: req.headers })
    const json = body ? JSON.parse(body) : null
    const known = /sparkle_session=yes/.test(req.headers.cookie ?? '')
    if (path === '/v1/sessions' && req.method === 'POST') {
      if (json.account !== 'admin' || json.password !== 'secret') return problem(res, 401, 'login_failed')
      res.setHeader('Set-Cookie', 'sparkle_session=yes; Path=/; HttpOnly; SameSite=Lax')
      return send(res, 201, me())
    }
    if (!known) return problem(res, 401, 'unauthenticated')
    if (path === '/v1/sessions' && req.method === 'GET') return send(res, 200, me())
    if (path === '/v1/sessions') {
      res.setHeader('Set-Cookie', 'sparkle_session=; Path=/; Max-Age=0')
      return send(res, 204)
    }
    if (path === '/v1/events') return events(req, res, url)
    if (path === '/v1/conferences' && req.method === 'POST') {
      const conference = { id: id('conf'), name: json.name, type: json.type, state: 'idle', owner: 'acc_1', created_at: now(), updated_at: now(), members: 0, ringing: 0, in_conference: 0 }
      const c = { conference, members: [], whisper: null, seq: 0 }
      confs.set(conference.id, c)
      emit(c, 'conference.created', conference)
      return send(res, 201, conference)
    }
    const [, , , cid, what, mid, leg] = path.split('/')
    const c = confs.get(cid)
    if (!c) return problem(res, 404, 'conference_not_found')
    const m = c.members.find((x) => x.id === mid)
    if (mid && what === 'members' && !m) return problem(res, 404, 'member_not_found')
    if (!what && req.method === 'DELETE') {
      emit(c, 'conference.deleted', c.conference)
      confs.delete(cid)
      return send(res, 204)
    }
    if (what === 'members' && !mid && req.method === 'POST') {
      const results = json.map((row) => {
        const r = invite(c, row)
        return r.member ? r : { status: r.status, error: problemOf(r.status, r.code) }
      })
      send(res, 201, { results })
      return tally(c)
    }
    if (what === 'calls') {
      const to = json.targets === 'all' ? c.members.filter((x) => x.state === 'idle') : json.targets === 'failed' ? c.members.filter((x) => x.last_outcome?.outcome === 'busy' && !x.leg) : c.members.filter((x) => json.targets.includes(x.id))
      if (!attachments[0].up) return problem(res, 503, 'attachment_down')
      send(res, 202, { results: to.map((x) => (x.leg ? { member: x.id, error: problemOf(409, 'member_in_call') } : { member: x.id, leg: structuredClone(dial(c, x)) })) })
      tally(c)
      if (auto) setTimeout(phones, 300)
      return
    }
    if (what === 'hangup') {
      for (const x of c.members) if (x.leg) end(c, x, x.leg.connected_at ? 'hung_up' : 'cancelled')
      send(res, 204)
      return tally(c)
    }
    if (what === 'whisper') {
      c.whisper = req.method === 'PUT' ? json : null
      emit(c, 'whisper.updated', { whisper: c.whisper })
      return req.method === 'PUT' ? send(res, 200, json) : send(res, 204)
    }
    if (what === 'preview.jpg') {
      refuse.pictures++
      if (!picture || !c.members.some((x) => x.leg?.media.video)) return problem(res, 409, 'no_picture')
      res.writeHead(200, { 'Content-Type': 'image/jpeg', 'Cache-Control': 'no-store', ETag: `"${refuse.pictures}"` })
      return res.end(picture)
    }
    if (what === 'members' && leg === 'leg' && req.method === 'PATCH') {
      if (m.leg.media_change?.to === 'video' && json.media === 'video') return problem(res, 429, 'upgrade_too_soon')
      m.leg.media_change = { to: json.media, state: 'asking', at: now() }
      send(res, 202, m.leg)
      return changed(c, m)
    }
    if (what === 'members' && leg === 'leg') {
      if (m.leg) end(c, m, m.leg.connected_at ? 'hung_up' : 'cancelled')
      send(res, 204)
      return tally(c)
    }
    if (what === 'members' && req.method === 'PATCH') {
      if (m.role === 'listener' && json.muted === false) return problem(res, 409, 'listener_is_muted')
      Object.assign(m, json)
      send(res, 200, m)
      return changed(c, m)
    }
    if (what === 'members' && req.method === 'DELETE') {
      c.members = c.members.filter((x) => x !== m)
      emit(c, 'member.removed', m, { member_id: m.id })
      send(res, 204)
      return tally(c)
    }
    problem(res, 404, 'route_not_found')
  }
  const first = () => [...confs.values()].at(-1)
  /** The phones of the newest conference do what their last digit says; with auto, by themselves. */
  function phones() {
    const c = first()
    for (const m of c.members) {
      if (m.state !== 'ringing') continue
      if (/[125]$/.test(m.number)) answer(c, m)
      else if (m.number.endsWith('3')) end(c, m, 'busy')
    }
    tally(c)
  }
  const me = () => ({ account: 'acc_1', name: 'admin', role: 'admin', scopes: ['conf:read', 'conf:write', 'call:dial', 'member:whisper', 'admin'], via: 'session', expires_at: now() })

  function events(req, res, url) {
    const only = url.searchParams.get('conference')
    if (only && !confs.has(only)) return problem(res, 404, 'conference_not_found')
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
    res.write('retry: 2000\n\n')
    const last = req.headers['last-event-id']
    const mine = (e) => !only || e.conference_id === only
    if (last) {
      for (const e of log) if (Number(e.id) > Number(last) && mine(e)) write(res, e)
    } else {
      const conferences = [...confs.values()].filter((c) => !only || c.conference.id === only)
      write(res, { id: String(eventID), seq: 0, time: now(), type: 'snapshot', data: { conferences, attachments } })
    }
    const s = { res, only }
    streams.add(s)
    res.on('close', () => streams.delete(s))
  }

  function page(path, res) {
    let name = normalize(path.replace(/^\/console\/?/, '') || 'index.html')
    if (!extname(name)) name = 'index.html'
    const file = join(dist, name)
    if (!existsSync(file)) return problem(res, 404, 'route_not_found')
    res.writeHead(200, { 'Content-Type': types[extname(name)] ?? 'application/octet-stream', 'Content-Security-Policy': csp, 'Cache-Control': 'no-store' })
    res.end(readFileSync(file))
  }

  const server = createServer((req, res) => void handle(req, res).catch((e) => res.destroy(e)))
  await new Promise((up) => server.listen(0, '127.0.0.1', up))
  const port = server.address().port
  return {
    base: `http://127.0.0.1:${port}`,
    requests,
    pictures: () => refuse.pictures,
    phones,
    talk(name) {
      const c = first()
      const m = c.members.find((x) => x.name === name)
      emit(c, 'talkers', { talkers: [{ member_id: m.id, talking: true, dbov: -20 }] })
    },
    /** What became of the wish for other media, and of the media. */
    setMedia(name, change, media = {}) {
      const m = first().members.find((x) => x.name === name)
      Object.assign(m.leg.media_change, change)
      Object.assign(m.leg.media, media)
      changed(first(), m)
    },
    setMember(name, patch) {
      const c = first()
      const m = Object.assign(c.members.find((x) => x.name === name), patch)
      changed(c, m)
    },
    /** Cuts every stream, as a restart of a proxy would. */
    cut: () => streams.forEach((s) => s.res.destroy()),
    streams: () => streams.size,
    lines(up) {
      attachments = [{ ...attachments[0], up, state: up ? 'registered' : 'unregistered' }]
      for (const s of streams) write(s.res, { id: String(++eventID), seq: 0, time: now(), type: 'attachment.updated', data: attachments[0] })
    },
    close: () => new Promise((done) => {
      server.close(done)
      server.closeAllConnections()
    }),
  }
}
