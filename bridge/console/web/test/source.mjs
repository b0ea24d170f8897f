// Loads one of the pages' plain TypeScript modules into node; only types may be imported in it.
import { readFileSync } from 'node:fs'
import ts from 'typescript'

export function source(name) {
  const code = readFileSync(new URL(`../src/lib/${name}.ts`, import.meta.url), 'utf8')
  const { outputText } = ts.transpileModule(code, { compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext } })
  return import('data:text/javascript;base64,' + Buffer.from(outputText).toString('base64'))
}
