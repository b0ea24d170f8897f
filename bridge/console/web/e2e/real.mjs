// The organiser's way against a running daemon, and the picture for the README. From the environment:
//   BASE_URL     where the daemon answers, without /console
//   ACCOUNT, PASSWORD
//   MEMBERS      JSON: [{"name", "number", "expect"?: "in_conference"|"ringing"|"idle", "outcome"?: "busy", "video"?: true}]
//   SCREENSHOT   where the picture goes (1280x800 PNG); optional
//   NAME         of the conference; optional
//   UI_LANG      zh (default) or en
//   TIMEOUT_MS   for the states to come true; 60000
//   HANGUP=1     hangs up all at the end and waits until everyone is idle
// Exit 0: every expectation came true. 1: not, and which. 2: the call of this script is wrong.
import { launch } from '../test/browser.mjs'

const env = (k) => {
  if (process.env[k]) return process.env[k]
  console.error(`${k} is not set`)
  process.exit(2)
}
const base = env('BASE_URL').replace(/\/$/, '')
const account = env('ACCOUNT')
const password = env('PASSWORD')
let members
try {
  members = JSON.parse(env('MEMBERS'))
  if (!Array.isArray(members) || !members.length || !members.every((m) => m.name && m.number)) throw new Error('want an array of {name, number}')
} catch (e) {
  console.error(`MEMBERS: ${e.message}`)
  process.exit(2)
}
const lang = process.env.UI_LANG === 'en' ? 'en' : 'zh'
const timeout = Number(process.env.TIMEOUT_MS) || 60_000
const states = { zh: { idle: '空闲', ringing: '振铃中', in_conference: '会议中' }, en: { idle: 'Idle', ringing: 'Ringing', in_conference: 'In conference' } }[lang]

const browser = await launch()
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
page.setDefaultTimeout(15_000)
const faults = []
page.on('pageerror', (e) => faults.push(`the page has a fault: ${e}`))
const row = (m) => page.locator(`tbody tr:has(.number:text-is("${m.number}"))`)

async function expect(m, state) {
  try {
    await row(m).locator(`[data-chip]:text-is("${states[state]}")`).waitFor({ timeout })
    if (m.outcome && state === 'idle') await row(m).locator(`[data-outcome="${m.outcome}"]`).waitFor({ timeout })
    if (m.video !== undefined && state === 'in_conference') await row(m).locator('.media', { hasText: m.video ? /视频|Video/ : /语音|Voice/ }).waitFor({ timeout })
  } catch {
    const is = await row(m).innerText({ timeout: 1000 }).catch(() => 'no such row')
    faults.push(`${m.name}: want ${state}${m.outcome && state === 'idle' ? ` (${m.outcome})` : ''}, is: ${is.replace(/\s+/g, ' ')}`)
  }
}

try {
  await page.addInitScript((l) => localStorage.setItem('sparkle.lang', l), lang)
  await page.goto(`${base}/console/`)
  await page.fill('#account', account)
  await page.fill('#password', password)
  await page.click('form button.primary')
  await page.click('.head button.primary')
  await page.fill('#conf-name', process.env.NAME ?? (lang === 'zh' ? '周一例会' : 'Monday meeting'))
  await page.click('dialog button.primary')
  await page.waitForURL(/\/console\/conferences\/conf_/)

  await page.locator('.tools .btn').first().click()
  for (const m of members) {
    await page.fill('#inv-number', m.number)
    await page.fill('#inv-name', m.name)
    await page.click('dialog form .btn')
  }
  await page.click('dialog .bar .primary')
  for (const m of members) await row(m).waitFor()

  await page.click('.tools .primary')
  await page.locator('[data-chip].ringing, [data-chip].in_conference').first().waitFor()
  // Those who come and go first, then those who stay: what is looked at last still holds.
  const order = { idle: 0, ringing: 1, in_conference: 2 }
  const want = members.map((m) => ({ ...m, expect: m.expect ?? 'in_conference' }))
  for (const m of want.toSorted((a, b) => order[a.expect] - order[b.expect])) await expect(m, m.expect)
  if (want.some((m) => m.video && m.expect === 'in_conference')) {
    await page.locator('.frame img[src^="blob:"]').waitFor({ timeout }).catch(() => faults.push('no picture of the conference'))
  }
  if (process.env.SCREENSHOT) {
    await page.locator('.toast').first().waitFor({ state: 'detached', timeout: 20_000 }).catch(() => {})
    await page.screenshot({ path: process.env.SCREENSHOT })
  }
  if (process.env.HANGUP === '1') {
    await page.click('.tools .danger')
    await page.click('dialog .fatal')
    for (const m of members) await expect({ name: m.name, number: m.number }, 'idle')
  }
} catch (e) {
  faults.push(String(e))
} finally {
  await browser.close()
}
for (const f of faults) console.error(f)
if (!faults.length) console.log(`${members.length} members: every state and outcome as wanted`)
process.exit(faults.length ? 1 : 0)
