import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { fake } from './fake.mjs'

// The script that is run against the real daemon must itself be right: it passes when the phones do
// what is expected of them, and names the one that does not.
test('the script for the real daemon', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'console-'))
  const api = await fake({ auto: true, picture: readFileSync(new URL('picture.jpg', import.meta.url)) })
  t.after(async () => {
    rmSync(dir, { recursive: true })
    await api.close()
  })
  const run = (members, env = {}) => new Promise((done) => {
    const p = spawn(process.execPath, [fileURLToPath(new URL('../e2e/real.mjs', import.meta.url))], {
      env: { ...process.env, BASE_URL: api.base, ACCOUNT: 'admin', PASSWORD: 'secret', MEMBERS: JSON.stringify(members), ...env },
    })
    let text = ''
    p.stdout.on('data', (b) => (text += b))
    p.stderr.on('data', (b) => (text += b))
    p.on('close', (code) => done({ code, text }))
  })
  const people = [
    { name: '王芳', number: '+8613800138001', expect: 'in_conference', video: true },
    { name: '李伟', number: '+8613800138002', expect: 'in_conference', video: false },
    { name: '张敏', number: '+8613800138003', expect: 'idle', outcome: 'busy' },
    { name: '陈静', number: '+8613800138004', expect: 'ringing' },
  ]
  const good = await run(people, { SCREENSHOT: join(dir, 'shot.png'), HANGUP: '1' })
  assert.equal(good.code, 0, good.text)
  const png = readFileSync(join(dir, 'shot.png'))
  assert.deepEqual([png.readUInt32BE(16), png.readUInt32BE(20)], [1280, 800])
  const bad = await run([{ ...people[2], expect: 'in_conference' }, people[0]], { TIMEOUT_MS: '4000', UI_LANG: 'en' })
  assert.equal(bad.code, 1)
  assert.match(bad.text, /张敏: want in_conference, is: .*Idle .*SIP 486/)
})
