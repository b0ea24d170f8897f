import createClient from 'openapi-fetch'
import type { paths } from '../api.gen'
import type { Problem } from './types'

/** A request that did not do what it should; code is what we have words for. */
export class Failure extends Error {
  constructor(
    readonly code: string,
    readonly status: number,
    readonly retryAfter = 0,
  ) {
    super(code)
  }
}

const client = createClient<paths>({ baseUrl: '' })

/** Called when the server no longer knows us. */
export const session = { lost: () => {} }

/** Makes the answer of a client call its data, or throws a Failure. */
export async function ask<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  let res
  try {
    res = await call
  } catch {
    throw new Failure('offline', 0)
  }
  if (res.response.ok) return res.data as T
  const p = (res.error ?? {}) as Partial<Problem>
  const f = new Failure(p.code ?? 'unknown', res.response.status, Number(res.response.headers.get('Retry-After')) || 0)
  if (f.status === 401 && f.code !== 'login_failed') session.lost()
  throw f
}

/** A header that lets the server recognise a repeated POST. */
export function once(): { 'Idempotency-Key': string } {
  const b = crypto.getRandomValues(new Uint8Array(16))
  return { 'Idempotency-Key': Array.from(b, (x) => x.toString(16).padStart(2, '0')).join('') }
}

export default client
