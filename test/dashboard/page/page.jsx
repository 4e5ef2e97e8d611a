// page.jsx shows a dashboard with Grafana's own components for panels. What is drawn,
// and how, is what the dashboard's JSON says: queries, units, thresholds, overrides,
// transformations, legends, places.
import { createRoot } from 'react-dom/client'
import * as data from '@grafana/data'
import {
  BigValue, GlobalStyles, InlineField, InlineFieldRow, Input, PanelChrome, PanelContextProvider, PortalContainer, ThemeContext, TimeSeries, VizRepeater,
} from '@grafana/ui'
import { TableNG } from '@grafana/ui/unstable'
import { lastValueFrom } from 'rxjs'
import { framesOf, valuesOf } from './queries.mjs'

const theme = data.createTheme({ colors: { mode: 'light' } })
const timeZone = 'utc'

// The grid of a dashboard: 24 columns, and rows of 30 pixels with 8 between them.
const gap = 8
const rowHeight = 30 + gap
const headerHeight = 88

// What Grafana's panels do where the dashboard says nothing.
const unsaid = {
  timeseries: { custom: { drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, showPoints: 'auto', axisPlacement: 'auto' } },
}

// A Grafana registers at its start what it can transform, and which options fields have.
data.standardTransformersRegistry.setInit(() => {
  const all = new Map(Object.values(data.standardTransformers).map((t) => [t.id, t]))
  return [...all.values()].map((t) => ({ id: t.id, name: t.name, transformation: () => t, editor: () => null }))
})
const processors = {
  unit: data.unitOverrideProcessor, min: data.numberOverrideProcessor, max: data.numberOverrideProcessor, decimals: data.numberOverrideProcessor,
  displayName: data.displayNameOverrideProcessor, noValue: data.stringOverrideProcessor, thresholds: data.thresholdsOverrideProcessor,
  mappings: data.valueMappingsOverrideProcessor, color: data.identityOverrideProcessor,
}

const item = (id, path, isCustom) => ({
  id, path, isCustom, name: id, editor: () => null, override: () => null, shouldApply: () => true,
  process: processors[id] ?? data.identityOverrideProcessor,
})

function optionsOf({ defaults, overrides }) {
  const custom = new Set(overrides.flatMap((o) => o.properties.map((p) => p.id)))
  Object.keys(defaults.custom ?? {}).forEach((name) => custom.add(`custom.${name}`))
  return new data.FieldConfigOptionsRegistry(() => [
    ...Object.keys(processors).map((id) => item(id, id, false)),
    ...[...custom].filter((id) => id.startsWith('custom.')).map((id) => item(id, id.slice('custom.'.length), true)),
  ])
}

// load asks a panel's queries, and prepares the answers as Grafana does.
async function load({ prometheus, range, scrape }, panel, width, replace) {
  const seconds = (range.to - range.from) / 1000
  const step = Math.max(1, Math.ceil(seconds / width / scrape)) * scrape
  const intervals = { __interval: `${step}s`, __rate_interval: `${Math.max(step + scrape, 4 * scrape)}s` }
  const answers = await framesOf(prometheus, panel.targets.map((t) => ({ ...t, expr: replace(t.expr, intervals) })), range, step)
  const transformed = await lastValueFrom(data.transformDataFrame(panel.transformations ?? [], answers))
  const { defaults, overrides } = panel.fieldConfig
  const fieldConfig = { overrides, defaults: { ...defaults, custom: { ...unsaid[panel.type]?.custom, ...defaults.custom } } }
  const frames = data.applyFieldOverrides({
    data: transformed, fieldConfig, fieldConfigRegistry: optionsOf(fieldConfig), replaceVariables: (text) => text, theme, timeZone,
  })
  data.cacheFieldDisplayNames(frames)
  return frames
}

const drawn = {
  stat: ({ panel: { options, fieldConfig }, frames, width, height }) => {
    const { reduceOptions, graphMode, ...modes } = options
    const values = data.getFieldDisplayValues({
      fieldConfig, reduceOptions, replaceVariables: (text) => text, theme, timeZone, data: frames, sparkline: graphMode !== 'none',
    })
    return <VizRepeater values={values} source={frames} width={width} height={height} orientation="auto" getValues={() => values}
      renderCounter={0} renderValue={({ value, width, height, count }) =>
        <BigValue value={value.display} sparkline={value.sparkline} count={count} width={width} height={height} theme={theme} {...modes} />} />
  },
  timeseries: ({ panel, frames, width, height, range }) =>
    <TimeSeries frames={frames} width={width} height={height} timeRange={range} timeZone={timeZone} legend={panel.options.legend} structureRev={1} />,
  table: ({ panel, frames, width, height }) =>
    <TableNG data={frames[0]} width={width} height={height} sortBy={panel.options.sortBy} cellHeight={panel.options.cellHeight} structureRev={1} />,
}

function Panel({ panel, frames, range, place }) {
  const Drawn = drawn[panel.type]
  const nothing = panel.type !== 'stat' && frames.every((f) => f.length === 0)
  return <div style={{ position: 'absolute', ...place }}>
    <PanelChrome title={panel.title} description={panel.description} width={place.width} height={place.height}>
      {(width, height) => nothing
        ? <div style={{ display: 'grid', placeItems: 'center', height, color: theme.colors.text.secondary }}>
          {panel.fieldConfig.defaults.noValue ?? 'No data'}
        </div>
        : <Drawn panel={panel} frames={frames} range={range} width={width} height={height} />}
    </PanelChrome>
  </div>
}

const Row = ({ panel, place }) =>
  <div style={{ position: 'absolute', ...place, display: 'flex', alignItems: 'center', ...theme.typography.h6 }}>⌄ {panel.title}</div>

const Header = ({ title, variables }) => <div style={{ padding: gap }}>
  <div style={{ ...theme.typography.h4, marginBottom: gap }}>{title}</div>
  <InlineFieldRow>
    {variables.map(({ name, label, values }) =>
      <InlineField key={name} label={label}><Input width={24} readOnly value={`All (${values.length})`} /></InlineField>)}
  </InlineFieldRow>
</div>

// show is called by picture.mjs, and gives the height of what it shows.
window.show = async (dashboard, world) => {
  for (const [name, weight] of [['Regular', '400'], ['Medium', '500']]) {
    document.fonts.add(await new FontFace('Inter', `url(/public/fonts/inter/Inter-${name}.woff2)`, { weight }).load())
  }
  const chosen = { datasource: 'prometheus' }
  const replace = (text, more) => text.replace(/\$(?:{(\w+)}|(\w+))/g, (whole, a, b) => ({ ...chosen, ...more })[a ?? b] ?? whole)
  const variables = []
  for (const v of dashboard.templating.list.filter((v) => v.type === 'query')) {
    variables.push({ ...v, values: await valuesOf(world.prometheus, replace(v.definition), world.range) })
    chosen[v.name] = v.allValue
  }
  const column = (world.width - gap) / 24
  const panels = await Promise.all(dashboard.panels.map(async (panel) => {
    const { x, y, w, h } = panel.gridPos
    const place = { left: gap + x * column, top: headerHeight + y * rowHeight, width: w * column - gap, height: h * rowHeight - gap }
    return { panel, place, frames: panel.type === 'row' ? [] : await load(world, panel, place.width, replace) }
  }))
  const times = { from: data.dateTime(world.range.from), to: data.dateTime(world.range.to) }
  const height = Math.max(...panels.map(({ place }) => place.top + place.height)) + gap
  createRoot(document.getElementById('page')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PanelContextProvider value={{ eventsScope: 'page', eventBus: new data.EventBusSrv() }}>
        <div style={{ position: 'relative', width: world.width, height, background: theme.colors.background.canvas }}>
          <Header title={dashboard.title} variables={variables} />
          {panels.map(({ panel, place, frames }) => panel.type === 'row'
            ? <Row key={panel.id} panel={panel} place={place} />
            : <Panel key={panel.id} panel={panel} place={place} frames={frames} range={{ ...times, raw: times }} />)}
        </div>
        <PortalContainer />
      </PanelContextProvider>
    </ThemeContext.Provider>,
  )
  return Math.ceil(height)
}
