// What the server has told us, kept up to date by its events. Pure: no clock, no network.
import type { Attachment, Conference, Event, Member, Snapshot, Whisper } from './types'

export interface Room {
  conference: Conference
  /** In order of invitation; a live roster is never sorted under the pointer. */
  order: string[]
  members: Record<string, Member>
  whisper: Whisper | null
  /** Member ids that are heard now. */
  talking: Record<string, number>
  seq: number
}

export interface State {
  ready: boolean
  rooms: Record<string, Room>
  deleted: Record<string, true>
  attachments: Attachment[]
}

/** What a member's change of state was, for the spoken digest. */
export interface Change {
  conference: string
  member: Member
  from: Member['state']
}

export function empty(): State {
  return { ready: false, rooms: {}, deleted: {}, attachments: [] }
}

/**
 * Applies one event. `gap` says that an event of this conference was missed: the caller asks for
 * a new snapshot.
 */
export function apply(s: State, e: Event): { gap: boolean; change?: Change } {
  if (e.type === 'snapshot') {
    const snap = e.data as unknown as Snapshot
    const rooms: Record<string, Room> = {}
    for (const r of snap.conferences) {
      rooms[r.conference.id] = {
        conference: r.conference,
        order: r.members.map((m) => m.id),
        members: Object.fromEntries(r.members.map((m) => [m.id, m])),
        whisper: r.whisper ?? null,
        talking: {},
        seq: r.seq,
      }
    }
    s.rooms = rooms
    s.attachments = snap.attachments
    s.ready = true
    return { gap: false }
  }
  if (e.type === 'attachment.updated') {
    const a = e.data as unknown as Attachment
    const i = s.attachments.findIndex((x) => x.name === a.name)
    if (i < 0) s.attachments.push(a)
    else s.attachments[i] = a
    return { gap: false }
  }
  const id = e.conference_id ?? ''
  if (e.type === 'conference.created') {
    const conference = e.data as unknown as Conference
    if (!s.rooms[id]) s.rooms[id] = { conference, order: [], members: {}, whisper: null, talking: {}, seq: e.seq }
    return { gap: false }
  }
  const room = s.rooms[id]
  if (!room) return { gap: false } // deleted a moment ago, or not ours
  if (e.type === 'talkers') {
    const data = e.data as { talkers?: { member_id: string; talking: boolean; dbov: number }[] }
    const talking: Record<string, number> = {}
    for (const t of data.talkers ?? []) if (t.talking) talking[t.member_id] = t.dbov
    room.talking = talking
    return { gap: false }
  }
  if (e.seq <= room.seq) return { gap: false } // the snapshot has it already
  const gap = e.seq > room.seq + 1
  room.seq = e.seq
  switch (e.type) {
    case 'conference.updated':
      room.conference = e.data as unknown as Conference
      break
    case 'conference.deleted':
      delete s.rooms[id]
      s.deleted[id] = true
      break
    case 'member.added':
    case 'member.updated': {
      const member = e.data as unknown as Member
      const before = room.members[member.id]
      if (!before) room.order.push(member.id)
      room.members[member.id] = member
      if (member.state !== 'in_conference') delete room.talking[member.id]
      if (before && before.state !== member.state) return { gap, change: { conference: id, member, from: before.state } }
      break
    }
    case 'member.removed': {
      const gone = e.member_id ?? ''
      room.order = room.order.filter((m) => m !== gone)
      delete room.members[gone]
      delete room.talking[gone]
      break
    }
    case 'leg.updated': {
      const leg = e.data as unknown as NonNullable<Member['leg']>
      const m = room.members[leg.member_id]
      if (m) m.leg = leg
      break
    }
    case 'leg.ended':
      break // member.updated follows and carries the outcome
    case 'whisper.updated':
      room.whisper = (e.data as { whisper?: Whisper | null }).whisper ?? null
      break
  }
  return { gap }
}

export type Filter = 'all' | Member['state']

/** The rows of a room that are shown: by state, and by words in name or number. */
export function rows(room: Room, filter: Filter, words: string): Member[] {
  const want = words.trim().toLowerCase()
  const digits = want.replace(/[\s()-]/g, '')
  const out: Member[] = []
  for (const id of room.order) {
    const m = room.members[id]
    if (!m || (filter !== 'all' && m.state !== filter)) continue
    if (want && !m.name.toLowerCase().includes(want) && !(digits && m.number.includes(digits))) continue
    out.push(m)
  }
  return out
}

/** How many members are in which state. */
export function counts(room: Room): Record<Filter, number> {
  const n: Record<Filter, number> = { all: 0, idle: 0, ringing: 0, in_conference: 0 }
  for (const id of room.order) {
    const m = room.members[id]
    if (!m) continue
    n.all++
    n[m.state]++
  }
  return n
}

const failedOutcomes = new Set(['left', 'hung_up', 'cancelled'])

/** Those that "call who failed" calls: the last call never connected, or broke. */
export function failed(room: Room): number {
  return room.order.filter((id) => {
    const m = room.members[id]
    return m?.state === 'idle' && m.last_outcome && !failedOutcomes.has(m.last_outcome.outcome)
  }).length
}

/** When the first of those who are in came in (ms), or 0. */
export function since(room: Room): number {
  let first = 0
  for (const id of room.order) {
    const at = room.members[id]?.leg?.connected_at
    if (!at) continue
    const ms = Date.parse(at)
    if (!first || ms < first) first = ms
  }
  return first
}
