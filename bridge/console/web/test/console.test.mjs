import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { launch } from './browser.mjs'
import { fake } from './fake.mjs'

const axe = readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8')
const shots = process.env.SHOTS // a folder: the pages are also pictured
let browser
before(async () => { browser = await launch() })
after(async () => { await browser?.close() })

/** A server and a page that has logged in, and made a conference with members if they are named. */
async function start(t, { members, lang = 'zh', login = true, ...rest } = {}) {
  const api = await fake(rest)
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, reducedMotion: 'reduce', ...rest.context })
  const page = await context.newPage()
  page.setDefaultTimeout(30_000) // a busy machine is not a fault of the page
  const faults = []
  page.on('pageerror', (e) => faults.push(String(e)))
  page.on('console', (m) => m.type() === 'error' && /Content Security|Uncaught/.test(m.text()) && faults.push(m.text()))
  page.on('dialog', (d) => faults.push(`a dialog: ${d.message()}`) && d.dismiss())
  t.after(async () => {
    await context.close()
    await api.close()
    assert.deepEqual(faults, [], 'the page has faults')
  })
  if (lang !== 'zh') await context.addInitScript((l) => localStorage.setItem('sparkle.lang', l), lang)
  await page.goto(`${api.base}/console/`)
  if (login) {
    await page.fill('#account', 'admin')
    await page.fill('#password', 'secret')
    await page.click('form button.primary')
    await page.waitForSelector('h1:has-text("会议管理"), h1:has-text("Conferences")')
  }
  if (members) {
    await make(page, '周一例会')
    await page.click('.tools button:has-text("邀请成员"), .tools button:has-text("Invite")')
    await page.click('dialog button:has-text("批量粘贴"), dialog button:has-text("Paste")')
    await page.fill('#inv-paste', members)
    await page.click('dialog .bar .primary')
    await page.waitForSelector('tbody tr')
  }
  return { api, page, context }
}

async function make(page, name) {
  await page.click('.head button.primary')
  await page.fill('#conf-name', name)
  await page.click('dialog .primary')
  await page.waitForURL(/\/console\/conferences\/conf_/)
}

const row = (page, name) => page.locator('tbody tr', { has: page.locator('.name', { hasText: name }) })
const state = (page, name, text) => row(page, name).locator('[data-chip]', { hasText: text }).waitFor()
const shoot = async (page, name) => shots && (await page.screenshot({ path: `${shots}/${name}.png` }))

async function accessible(page, what) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe)
  const found = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] }))
  const bad = found.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical')
  assert.deepEqual(bad.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' ')}`), [], what)
}

const people = '王芳,+8613800138001\n李伟,+8613800138002\n张敏,+8613800138003\n陈静,+8613800138004\n刘洋,+8613800138005'

test('the way of an organiser, from login to hanging up', async (t) => {
  const { api, page } = await start(t, { login: false })
  await accessible(page, 'login')
  await page.fill('#account', 'admin')
  await page.fill('#password', 'wrong')
  await page.click('form button.primary')
  await page.getByText('账号或密码不正确').waitFor()
  await shoot(page, 'login')
  await page.fill('#password', 'secret')
  await page.click('form button.primary')
  await page.getByText('还没有会议').waitFor()
  await accessible(page, 'empty list')

  await page.click('.head button.primary')
  assert.equal(await page.isChecked('input[value=video]'), true, 'video is the default')
  await accessible(page, 'create dialog')
  await page.fill('#conf-name', '周一例会')
  await page.click('dialog >> text=完成')
  await page.waitForURL(/\/console\/conferences\/conf_/)
  await page.getByText('还没有成员').waitFor()

  await page.click('.tools >> text=邀请成员')
  await page.fill('#inv-number', 'abc')
  await page.click('text=+ 添加成员')
  await page.getByText('不像电话号码').waitFor()
  for (const [n, name] of [['+86 138-0013-8001', '王芳'], ['008613800138003', '张敏']]) {
    await page.fill('#inv-number', n)
    await page.fill('#inv-name', name)
    await page.click('text=+ 添加成员')
  }
  assert.deepEqual(await page.locator('.right li b').allTextContents(), ['王芳', '张敏'])
  await shoot(page, 'invite')
  await accessible(page, 'invite')
  await page.click('dialog >> text=完成')
  await state(page, '王芳', '空闲')
  assert.equal(await row(page, '张敏').locator('.number').textContent(), '+8613800138003')

  await page.click('text=会议呼叫')
  await state(page, '王芳', '振铃中')
  await state(page, '张敏', '振铃中')
  assert.match(await row(page, '王芳').locator('.timer').textContent(), /^0:0\d$/)
  api.phones()
  await state(page, '王芳', '会议中')
  await row(page, '王芳').getByText('视频').waitFor()
  await state(page, '张敏', '空闲')
  assert.match(await row(page, '张敏').locator('.call').textContent(), /对方正在通话中.*SIP 486/s)
  await page.locator('[data-digest]', { hasText: '王芳 已入会' }).waitFor({ state: 'attached' })
  assert.equal(await page.locator('[data-filter=in_conference] span').textContent(), '1')

  await page.click('text=全部挂断')
  assert.equal(await row(page, '王芳').locator('[data-chip]').textContent(), '会议中', 'nobody is hung up before the question is answered')
  await page.click('dialog .fatal')
  await state(page, '王芳', '空闲')
  await row(page, '王芳').getByText('已被管理员挂断').waitFor()
})

test('one member: mute, whisper, hang up, call, remove', async (t) => {
  const { api, page } = await start(t, { members: people })
  await page.click('text=会议呼叫')
  await state(page, '刘洋', '振铃中')
  api.phones()
  await state(page, '王芳', '会议中')
  await row(page, '李伟').getByText('对方以语音接听').waitFor()
  await row(page, '刘洋').getByText('对方网络拒绝视频').waitFor()
  await row(page, '刘洋').locator('.mos.poor').waitFor()
  api.talk('王芳')
  await row(page, '王芳').getByText('正在讲话').waitFor()

  // Muting shows before the answer; a refusal takes it back and says why.
  let answer
  await page.route('**/members/*', async (r) => { await new Promise((go) => { answer = go }); await r.continue() })
  await row(page, '王芳').locator('[data-do=mute]').click()
  await row(page, '王芳').getByText('已静音').waitFor()
  assert.equal(api.requests.filter((r) => r.method === 'PATCH').length, 0)
  answer()
  await page.waitForResponse((r) => r.request().method() === 'PATCH' && r.ok())
  await page.unroute('**/members/*')
  assert.equal(await row(page, '王芳').locator('[data-do=mute]').getAttribute('aria-pressed'), 'true')
  api.setMember('李伟', { role: 'listener', muted: true })
  await row(page, '李伟').getByText('听众').waitFor()
  await row(page, '李伟').locator('[data-do=mute]').click()
  await page.getByText('听众不能取消静音').waitFor()
  await row(page, '李伟').getByText('已静音').waitFor()
  api.setMember('刘洋', { unverified: true })
  await row(page, '刘洋').getByText('未验证').waitFor()
  assert.equal(await page.getByText('未验证').count(), 1)

  await row(page, '王芳').locator('[data-do=whisper]').click()
  assert.equal(await page.isDisabled('input[value=console]'), true)
  await accessible(page, 'whisper')
  await page.check('dialog label:has-text("刘洋") input')
  await page.click('dialog .primary')
  await page.getByText('刘洋 正在对 王芳 私语').waitFor()
  await accessible(page, 'room with calls')
  await page.click('text=结束私语')
  await page.getByText('正在对').waitFor({ state: 'detached' })

  // Video comes and goes in the call; nobody is asked twice within a minute.
  await row(page, '李伟').locator('[data-do=video]').click()
  await row(page, '李伟').getByText('正在请对方开视频').waitFor()
  assert.equal(await row(page, '李伟').locator('[data-do=video]').isDisabled(), true)
  api.setMedia('李伟', { state: 'refused', status: 603 })
  await row(page, '李伟').getByText('对方没有打开视频').waitFor()
  await row(page, '李伟').locator('[data-do=video]').click()
  await page.getByText('一分钟后再试').waitFor()
  await row(page, '王芳').locator('[data-do=voice]').click()
  await row(page, '王芳').getByText('正在转为语音').waitFor()
  api.setMedia('王芳', { state: 'done' }, { video: null, why_no_video: 'voice_only', video_state: 'removed' })
  await row(page, '王芳').getByText('已转为语音').waitFor()
  await row(page, '王芳').locator('[data-do=video]').waitFor()
  await row(page, '陈静').locator('[data-do=hangup]').click()
  await row(page, '陈静').getByText('呼叫已取消').waitFor()
  await row(page, '陈静').locator('[data-do=call]').click()
  await state(page, '陈静', '振铃中')
  await row(page, '张敏').locator('[data-do=remove]').click()
  await page.click('dialog .fatal')
  await row(page, '张敏').waitFor({ state: 'detached' })
  assert.equal(await page.locator('tbody tr').count(), 4)
})

test('keys act on the selected, and never while typing', async (t) => {
  const { api, page } = await start(t, { members: people })
  const dials = () => api.requests.filter((r) => r.path.endsWith('/calls')).length
  await page.keyboard.press('/')
  await page.keyboard.type('cmhC?')
  assert.equal(await page.inputValue('.find input'), 'cmhC?')
  assert.equal(dials(), 0)
  await page.getByText('没有符合条件的成员').waitFor()
  await page.fill('.find input', '8002')
  assert.equal(await page.locator('tbody tr').count(), 1)
  await page.fill('.find input', '')
  await page.keyboard.press('Escape')
  await page.keyboard.press('?')
  await page.getByText('键盘快捷键').waitFor()
  await page.keyboard.press('Shift+C')
  assert.equal(dials(), 0, 'nothing is dialled behind a dialog')
  await page.keyboard.press('Escape')
  await page.locator('dialog').waitFor({ state: 'detached' })
  await row(page, '李伟').locator('input').check()
  await page.keyboard.press('c')
  await state(page, '李伟', '振铃中')
  await state(page, '王芳', '空闲')
  await page.keyboard.press('m')
  await row(page, '李伟').getByText('已静音').waitFor()
  await page.keyboard.press('h')
  await state(page, '李伟', '空闲')
  await page.keyboard.press('Shift+C')
  await state(page, '王芳', '振铃中')
})

test('a lost connection is told, and nothing is missed', async (t) => {
  const { api, page, context } = await start(t, { members: people })
  await context.setOffline(true)
  api.cut()
  await page.getByText('与服务器的连接已断开').waitFor()
  api.setMember('王芳', { name: '王芳（改名）' })
  await context.setOffline(false)
  await row(page, '王芳（改名）').waitFor()
  await page.getByText('与服务器的连接已断开').waitFor({ state: 'detached' })
  const again = api.requests.filter((r) => r.path === '/v1/events').at(-1)
  assert.ok(Number(again.headers['last-event-id']) > 0, 'it goes on from where it was')
  api.lines(false)
  await page.getByText('现在无法呼叫').waitFor()
  await page.click('text=会议呼叫')
  await page.locator('.toast.bad', { hasText: '线路不可用' }).waitFor()
  assert.ok(!(await page.content()).includes('RAW'), 'the words of the server are never shown')
})

test('names are text, whatever is in them', async (t) => {
  const evil = '<img src=x onerror=alert(1)><script>alert(2)</script>'
  const { page } = await start(t, { members: `${evil};+8613800138001\n\u202ertl,+8613800138002\n${'长'.repeat(190)},+8613800138003` })
  assert.equal(await page.locator('tbody .name bdi').first().textContent(), evil)
  assert.equal(await page.locator('main img, main script').count(), 0)
  await row(page, 'img').locator('[data-do=remove]').click()
  await page.locator('dialog p', { hasText: evil }).waitFor()
  await page.keyboard.press('Escape')
  await page.setViewportSize({ width: 390, height: 844 })
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'no sideways scrolling')
})

test('rows that the server refuses stay, with the reason', async (t) => {
  const { page } = await start(t, { members: '王芳,+8613800138001' })
  await page.click('.tools >> text=邀请成员')
  await page.fill('#inv-number', '13800138009')
  await page.click('text=+ 添加成员')
  await page.fill('#inv-number', '+8613800138001')
  await page.click('text=+ 添加成员')
  await page.getByText('已在名单中').waitFor()
  await page.fill('#inv-number', '+8613800138007')
  await page.click('dialog >> text=完成')
  await page.locator('.right li', { hasText: '不是有效的电话号码' }).waitFor()
  assert.equal(await page.locator('.right li').count(), 1)
  assert.equal(await page.locator('tbody tr').count(), 2)
})

test('English, dark, and a phone', async (t) => {
  const api = { lang: 'en', members: 'Wang Fang,+8613800138001\nLi Wei,+8613800138002\nZhang Min,+8613800138003\nChen Jing,+8613800138004\nLiu Yang,+8613800138005', context: { colorScheme: 'dark' } }
  const s = await start(t, api)
  const { page } = s
  await page.click('text=Call all')
  await state(page, 'Liu Yang', 'Ringing')
  s.api.phones()
  await state(page, 'Wang Fang', 'In conference')
  await row(page, 'Zhang Min').getByText('The line is busy').waitFor()
  assert.equal(await page.getAttribute('html', 'lang'), 'en')
  assert.doesNotMatch(await page.locator('main').innerText(), /振铃|空闲|呼叫|挂断|静音/)
  await accessible(page, 'dark')
  await shoot(page, 'room-en-dark')
  await page.setViewportSize({ width: 390, height: 844 })
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'no sideways scrolling')
  await accessible(page, 'phone')
  await shoot(page, 'room-phone-dark')
  await page.click('text=中文')
  await page.getByText('会议呼叫').waitFor()
})

test('the picture is fetched while somebody has video', async (t) => {
  const picture = readFileSync(new URL('picture.jpg', import.meta.url))
  const { api, page } = await start(t, { members: people, picture })
  assert.equal(api.pictures(), 0, 'nobody is in')
  await page.click('text=会议呼叫')
  await state(page, '王芳', '振铃中')
  api.phones()
  api.talk('王芳')
  await page.locator('img[src^="blob:"]').waitFor()
  const first = await page.getAttribute('.frame img', 'src')
  await page.waitForFunction((was) => document.querySelector('.frame img')?.src !== was, first)
  await shoot(page, 'room-zh')
  await page.click('.brand')
  await page.locator('.chip.in', { hasText: '3 人会议中' }).waitFor()
  await shoot(page, 'list')
  await accessible(page, 'list')
})

test('what the browser loads stays small', () => {
  const dir = new URL('../../dist/app/assets/', import.meta.url)
  const size = readdirSync(dir).reduce((n, f) => n + gzipSync(readFileSync(new URL(f, dir))).length, 0)
  assert.ok(size > 10_000 && size <= 120_000, `${size} bytes gzipped`)
})
