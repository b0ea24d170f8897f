import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { test } from 'node:test'
import { source } from './source.mjs'

const { apply, counts, empty, failed, rows } = await source('state')
const { words, explain, clock, whyNoVideo, mosWord } = await source('words')
const { Parser } = await source('sse')
const { parse, clean } = await source('numbers')

const conference = { id: 'conf_1', name: 'x', type: 'video', state: 'idle' }
const member = (id, state, more = {}) => ({ id, conference_id: 'conf_1', name: id, number: '+86138' + id, state, leg: null, last_outcome: null, ...more })
const event = (seq, type, data, more = {}) => ({ id: String(seq), seq, time: '', type, conference_id: 'conf_1', data, ...more })

function state() {
  const s = empty()
  apply(s, { id: '9', seq: 0, type: 'snapshot', data: { conferences: [{ conference, members: [member('1', 'idle'), member('2', 'idle')], whisper: null, seq: 4 }], attachments: [] } })
  return s
}

test('events change the snapshot', () => {
  const s = state()
  const room = s.rooms.conf_1
  assert.deepEqual(apply(s, event(5, 'member.updated', member('1', 'ringing'))).change.from, 'idle')
  apply(s, event(6, 'member.added', member('3', 'idle')))
  assert.deepEqual(room.order, ['1', '2', '3'])
  apply(s, event(0, 'talkers', { talkers: [{ member_id: '1', talking: true, dbov: -20 }, { member_id: '2', talking: false, dbov: -70 }] }))
  assert.deepEqual(room.talking, { 1: -20 })
  apply(s, event(7, 'leg.updated', { id: 'leg_1', member_id: '1', state: 'early_media' }))
  assert.equal(room.members[1].leg.state, 'early_media')
  apply(s, event(8, 'member.updated', member('1', 'idle', { last_outcome: { outcome: 'busy' } })))
  assert.deepEqual(room.talking, {})
  assert.equal(failed(room), 1)
  apply(s, event(9, 'member.removed', {}, { member_id: '2' }))
  assert.deepEqual(counts(room), { all: 2, idle: 2, ringing: 0, in_conference: 0 })
  apply(s, event(10, 'whisper.updated', { whisper: { from: '1', to: ['3'], mode: 'coach' } }))
  assert.equal(room.whisper.mode, 'coach')
  apply(s, event(11, 'whisper.updated', { whisper: null }))
  assert.equal(room.whisper, null)
  assert.equal(room.seq, 11)
  apply(s, event(12, 'conference.deleted', conference))
  assert.deepEqual([s.rooms, s.deleted], [{}, { conf_1: true }])
  assert.deepEqual(apply(s, event(13, 'member.added', member('9', 'idle'))), { gap: false })
})

test('old events do nothing, missing ones are noticed', () => {
  const s = state()
  apply(s, event(4, 'member.updated', member('1', 'ringing')))
  assert.equal(s.rooms.conf_1.members[1].state, 'idle')
  assert.equal(apply(s, event(5, 'member.updated', member('1', 'ringing'))).gap, false)
  assert.equal(apply(s, event(7, 'member.updated', member('1', 'idle'))).gap, true)
})

test('rows are found by state, name and number', () => {
  const s = state()
  apply(s, event(5, 'member.updated', member('2', 'ringing', { name: 'Li Wei', number: '+8613800138002' })))
  const find = (f, w) => rows(s.rooms.conf_1, f, w).map((m) => m.id)
  assert.deepEqual(find('all', ''), ['1', '2'])
  assert.deepEqual(find('ringing', ''), ['2'])
  assert.deepEqual(find('all', ' li w'), ['2'])
  assert.deepEqual(find('all', '138 0013-8002'), ['2'])
  assert.deepEqual(find('idle', 'li'), [])
})

test('the stream is read in any pieces', () => {
  const text = 'retry: 2000\r\n\r\n: beat\n\nid: 7\nevent: talkers\ndata: {"a":\ndata: 1}\n\ndata:x\r\rid: 8\n\ndata: 好\n\n'
  const want = [{ id: '7', event: 'talkers', data: '{"a":\n1}' }, { id: '', event: 'message', data: 'x' }, { id: '', event: 'message', data: '好' }]
  for (let size = 1; size <= text.length; size++) {
    const p = new Parser()
    const got = []
    for (let i = 0; i < text.length; i += size) got.push(...p.push(text.slice(i, i + size)))
    assert.deepEqual(got, want, `pieces of ${size}`)
  }
})

test('pasted lines', () => {
  const got = parse('\uFEFF王芳,+86 138-0013-8001\n0086１３８00138002；李伟\r\n\n+8613800138003\n"Zhang, no number"\nx,+8613800138001\ny\t+8613800138009\nz,12', new Set(['+8613800138009']))
  assert.deepEqual(got.map((r) => [r.line, r.member.name, r.member.number, r.fault]), [
    [1, '王芳', '+8613800138001', null], [2, '李伟', '+8613800138002', null], [4, '', '+8613800138003', null],
    [5, '"Zhang', 'nonumber"', 'number_invalid'], [6, 'x', '+8613800138001', 'duplicate'], [7, 'y', '+8613800138009', 'member_exists'], [8, 'z', '12', 'number_invalid'],
  ])
  assert.equal(clean('＋86（138）0013 8001'), '+8613800138001')
})

test('both languages have the same words with the same holes', () => {
  const holes = (s) => [...s.matchAll(/\{\w+\}/g)].map((m) => m[0]).sort().join()
  assert.deepEqual(Object.keys(words.en).sort(), Object.keys(words.zh).sort())
  for (const k of Object.keys(words.zh)) {
    assert.equal(holes(words.en[k]), holes(words.zh[k]), k)
    if (k !== 'why.not_offered') assert.ok(words.zh[k] && words.en[k], k)
    if (k !== 'app.language') assert.doesNotMatch(words.en[k], /\p{Script=Han}/u, k)
  }
})

test('every word that a page asks for exists', () => {
  const dir = new URL('../src/', import.meta.url)
  for (const f of readdirSync(dir, { recursive: true }).filter((f) => /\.(svelte|ts)$/.test(f))) {
    for (const m of readFileSync(new URL(f, dir), 'utf8').matchAll(/\bt\('([\w.]+)'/g)) assert.ok(m[1] in words.zh, `${f}: ${m[1]}`)
  }
})

test('errors are said in words by their code', () => {
  const codes = 'login_failed login_throttled session_expired unauthenticated scope_missing name_required name_invalid type_invalid number_invalid role_invalid targets_required targets_invalid media_invalid mode_invalid to_required to_invalid ring_timeout_invalid listener_is_muted member_not_in_conference member_exists member_in_call attachment_down dial_not_allowed console_has_no_audio conference_full too_many_conferences no_picture shutting_down storage_full storage_unavailable media_down not_conference_owner conference_not_found member_not_found leg_not_found conference_busy ports_full upgrade_too_soon not_connected conference_is_audio cs_access leg_held no_video'
  for (const lang of ['zh', 'en']) {
    const said = new Set(codes.split(' ').map((c) => explain(lang, c, 400)))
    assert.equal(said.size, codes.split(' ').length, 'each its own words')
    assert.ok(!said.has(words[lang]['error.generic']))
    assert.equal(explain(lang, 'brand_new', 409), words[lang]['error.generic'])
    assert.equal(explain(lang, 'brand_new', 502), words[lang]['error.server'])
  }
})

test('figures in words', () => {
  assert.deepEqual([0, 59_999, 60_000, 3_661_000, -5].map(clock), ['0:00', '0:59', '1:00', '1:01:01', '0:00'])
  assert.deepEqual([0, 4.2, 3.2, 2].map(mosWord), [null, 'good', 'fair', 'poor'])
  assert.equal(whyNoVideo('en', 'rejected_488'), words.en['why.rejected'])
  assert.equal(whyNoVideo('en', 'something_new'), words.en['why.other'])
})
