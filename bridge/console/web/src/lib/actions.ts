// What an organiser does to members; each shows its own failure in words.
import client, { ask, Failure, once } from './api'
import { act, reason, t, toast } from './app.svelte'
import type { Member } from './types'

const at = (m: Member) => ({ params: { path: { c: m.conference_id, m: m.id } } })

/** Dials; the states come as events. */
export async function call(c: string, targets: 'all' | 'failed' | string[]): Promise<void> {
  const res = await act(() => ask(client.POST('/v1/conferences/{c}/calls', { params: { path: { c }, header: once() }, body: { targets } })))
  if (!res) return
  const bad = res.results.filter((r) => r.error)
  const n = res.results.length - bad.length
  const first = bad[0]?.error
  if (first) toast(t('error.partial', { n: bad.length, why: reason(new Failure(first.code, first.status)) }), true)
  if (n) toast(t('room.called', { n }))
  else if (!first) toast(t('room.nobody'))
}

export const hangUp = (m: Member) => act(() => ask(client.DELETE('/v1/conferences/{c}/members/{m}/leg', at(m))))
/** Asks the phone for video, or goes on by voice; what becomes of it comes as events. */
export const setMedia = (m: Member, media: 'video' | 'audio') => act(() => ask(client.PATCH('/v1/conferences/{c}/members/{m}/leg', { ...at(m), body: { media } })))
export const remove = (m: Member) => act(() => ask(client.DELETE('/v1/conferences/{c}/members/{m}', at(m))))
export const mute = (m: Member, muted: boolean) => act(() => ask(client.PATCH('/v1/conferences/{c}/members/{m}', { ...at(m), body: { muted } })))

export async function hangUpAll(c: string): Promise<void> {
  const done = await act(async () => {
    await ask(client.POST('/v1/conferences/{c}/hangup', { params: { path: { c }, header: once() } }))
    return true
  })
  if (done) toast(t('room.hungup'))
}

export const endWhisper = (c: string) => act(() => ask(client.DELETE('/v1/conferences/{c}/whisper', { params: { path: { c } } })))
