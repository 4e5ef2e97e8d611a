// picture.mjs PROMETHEUS FROM TO SCRAPE OUT   draws config/grafana/dashboard.json with
// what a Prometheus saw between two times (in milliseconds), and photographs it.
import { execFileSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'

const [prometheus, from, to, scrape, out] = process.argv.slice(2)
const here = dirname(fileURLToPath(import.meta.url))
const width = 1600

const bundle = await build({
  entryPoints: [join(here, 'page.jsx')], outdir: here, bundle: true, write: false, format: 'iife', jsx: 'automatic', logLevel: 'error',
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' }, loader: { '.ttf': 'dataurl' },
})

// What a Grafana server would serve. The browser finds it beside Prometheus, whose
// answers it may read only then.
const html = '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/page.css"><body style="margin: 0"><div id="page"></div><script src="/page.js"></script>'
const served = { '/': { body: html, contentType: 'text/html' } }
for (const { path, text } of bundle.outputFiles) {
  served[`/page${extname(path)}`] = { body: text, contentType: extname(path) === '.js' ? 'text/javascript' : 'text/css' }
}
function serve(path) {
  const font = { '/public/fonts/inter/Inter-Regular.woff2': 400, '/public/fonts/inter/Inter-Medium.woff2': 500 }[path]
  if (font) {
    return { path: join(here, `node_modules/@fontsource/inter/files/inter-latin-${font}-normal.woff2`) }
  }
  return path.startsWith('/public/build/') ? { path: join(here, 'node_modules/@grafana/ui/dist', path.replace('/build/', '/')) } : served[path]
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox'] })
try {
  const page = await browser.newPage({ viewport: { width, height: 1000 } })
  page.on('pageerror', (error) => {
    console.error(error)
    process.exitCode = 1
  })
  await page.route(`${prometheus}/**`, (route) => {
    const answer = serve(new URL(route.request().url()).pathname)
    return answer ? route.fulfill(answer) : route.continue()
  })
  await page.goto(prometheus)
  const dashboard = JSON.parse(await readFile(join(here, '../../../config/grafana/dashboard.json'), 'utf8'))
  const world = { prometheus, width, scrape: Number(scrape), range: { from: Number(from), to: Number(to) } }
  const height = await page.evaluate(([d, w]) => window.show(d, w), [dashboard, world])
  await page.setViewportSize({ width, height })
  // The icons of descriptions come last.
  const described = dashboard.panels.filter((p) => p.description).length
  await page.waitForFunction((n) => document.querySelectorAll('[data-testid="title-items-container"] svg').length === n, described)
  await page.screenshot({ path: out })
  execFileSync('pngquant', ['--force', '--output', out, '256', out])
} finally {
  await browser.close()
}
