import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// The daemon embeds ../dist; the stub beside app/ is what it serves when this was never built.
export default defineConfig({
  base: '/console/',
  plugins: [svelte()],
  build: { outDir: '../dist/app', emptyOutDir: true, target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false } },
})
