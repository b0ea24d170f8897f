// What people paste: names and numbers from chats and spreadsheets. The server has the last word
// on what can be called; here we only catch what no phone number looks like.
import type { NewMember } from './types'

/** Blanks, dashes and brackets off, full-width digits to plain ones, 00 to +. */
export function clean(typed: string): string {
  const plain = typed
    .replace(/[\uFF10-\uFF19]/g, (d) => String.fromCharCode(d.charCodeAt(0) - 0xfee0))
    .replace(/\uFF0B/g, '+')
    .replace(/[\s\-().\u2010-\u2015\uFF08\uFF09]/g, '')
  return plain.startsWith('00') ? '+' + plain.slice(2) : plain
}

/** Whether a cleaned number can be one. */
export function plausible(number: string): boolean {
  return /^\+?[0-9]{3,15}$/.test(number)
}

export type Fault = 'number_required' | 'number_invalid' | 'duplicate' | 'member_exists'

export interface Row {
  line: number
  member: NewMember
  fault: Fault | null
}

/**
 * Reads pasted lines of "name,number" or "number,name" or a number alone; the comma may be a tab, a
 * semicolon or a Chinese one. taken are numbers that are on the roster already.
 */
export function parse(text: string, taken: ReadonlySet<string> = new Set()): Row[] {
  const seen = new Set<string>()
  const out: Row[] = []
  text.replace(/^\uFEFF/, '').split(/\r\n|\r|\n/).forEach((raw, i) => {
    if (!raw.trim()) return
    const cells = raw.split(/[,\t;\uFF0C\uFF1B\u3001]/).map((c) => c.trim().replace(/^"(.*)"$/, '$1').trim())
    let at = cells.findIndex((c) => plausible(clean(c)))
    let name
    if (at >= 0) {
      name = cells.find((c, k) => k !== at && c !== '') ?? ''
    } else if (cells.length > 1) {
      at = cells.length > 1 && cells[1] !== '' ? 1 : 0
      name = cells[at === 1 ? 0 : 1] ?? ''
    } else {
      at = 0
      name = ''
    }
    const number = clean(cells[at] ?? '')
    out.push({ line: i + 1, member: { number, name: name.slice(0, 200) }, fault: check(number, seen, taken) })
    seen.add(number)
  })
  return out
}

/** What is wrong with a number that is to join those in seen and taken. */
export function check(number: string, seen: ReadonlySet<string>, taken: ReadonlySet<string>): Fault | null {
  if (!number) return 'number_required'
  if (!plausible(number)) return 'number_invalid'
  if (seen.has(number)) return 'duplicate'
  if (taken.has(number)) return 'member_exists'
  return null
}
